"""Everything rendered against the schemas of Kubernetes, its operators and compose; expressions
against Prometheus' grammar; rules against their own tests; Dockerfiles against hadolint.

Programs come from .venvs/deploy.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.monitoring.__main__ import HERE as MONITORING
from tests.clients.environments import program, python
from tests.clients.running import needs
from tests.debian import find
from tests.deploy.kustomize import render
from tests.deploy.overlays import KUBERNETES, OVERLAYS, ROOT, objects
from tests.deploy.promql import names
from tests.deploy.test_monitoring import expressions

pytestmark = [pytest.mark.deploy, needs("deploy")]

HERE = Path(__file__).parent
DOCKER = ROOT / "docker"
RULES = MONITORING / "rules.yaml"
RULE_TESTS = MONITORING / "rules.test.yaml"


def run(script: str, *arguments: str, given: object) -> Any:
    command = [str(python("deploy")), str(HERE / "scripts" / f"{script}.py"), *arguments]
    done = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def faults(*found: tuple[str, Any]) -> list[str]:
    return list(run("validate", str(HERE / "schemas"), given=found))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_fits_its_schema(overlay: str) -> None:
    found = [(f"{o['kind']} {o['metadata']['name']}", o) for o in objects(overlay)]
    assert faults(*found) == []


def test_the_job_that_downloads_a_checkpoint_fits_its_schema() -> None:
    assert faults(*((one["kind"], one) for one in render(KUBERNETES / "model"))) == []


def break_deployment(one: dict[str, Any]) -> None:
    one["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}


def break_port(one: dict[str, Any]) -> None:
    one["spec"]["ports"][0]["port"] = "http"


def break_trigger(one: dict[str, Any]) -> None:
    one["spec"]["triggers"][0]["metadata"]["threshold"] = 2


def break_pool(one: dict[str, Any]) -> None:
    one["spec"]["targetPortNumber"] = 8000


def break_set(one: dict[str, Any]) -> None:
    one["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": 1}}


def break_scaling(one: dict[str, Any]) -> None:
    one["spec"]["roles"][0]["scaling"]["mode"] = "Outside"


def break_role(one: dict[str, Any]) -> None:
    template = one["spec"]["roles"][0]["spec"]["leaderWorkerTemplate"]["workerTemplate"]
    template["spec"]["containers"][0]["image"] = 1


@pytest.mark.parametrize(
    ("overlay", "kind", "damage"),
    [
        ("1E1PD", "Deployment", break_deployment),
        ("1E1PD", "Service", break_port),
        ("NENPND-keda", "ScaledObject", break_trigger),
        ("NENPND-keda", "InferencePool", break_pool),
        ("NENPND-tp", "StatefulSet", break_set),
        ("lws", "DisaggregatedSet", break_role),
        ("lws-keda", "DisaggregatedSet", break_scaling),
    ],
)
def test_a_wrong_field_is_found(
    overlay: str, kind: str, damage: Callable[[dict[str, Any]], None]
) -> None:
    """Negative controls."""
    one = copy.deepcopy(next(o for o in objects(overlay) if o["kind"] == kind))
    assert faults(("whole", one)) == []
    damage(one)
    assert faults(("damaged", one)) != []


def test_the_compose_file_fits_its_schema() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    assert faults(("compose.yaml", compose)) == []
    compose["services"]["gateway"]["port"] = []
    assert faults(("compose.yaml", compose)) != []


def test_every_expression_parses_and_reads_the_metrics_that_the_tests_see_in_it() -> None:
    found = run("promql", given={**expressions(), "wrong": "sum by (rate(x)"})
    assert list(found["wrong"]) == ["wrong"]
    for place, expr in expressions().items():
        assert set(found["metrics"][place]) == set(names(expr).metrics), place


def wrong_rules(rules: Path) -> list[Any]:
    return list(run("rules", str(rules), given=yaml.safe_load(RULE_TESTS.read_text())))


def test_rules_compute_and_alerts_fire_as_their_tests_say() -> None:
    assert wrong_rules(RULES) == []


wrong_rule = pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("epd:errors:ratio5m > 0.02", "epd:errors:ratio5m > 0.4"),
        ("for: 10m", "for: 1h"),
        ("max by (worker) (epd_worker_queued_cost)", "sum by (worker) (epd_worker_queued_cost)"),
        ('status=~"5.."', 'status=~"[45].."'),
        ('reason!="stale"', 'reason!=""'),
    ],
)


@wrong_rule
def test_a_wrong_rule_fails_its_tests(right: str, wrong: str, tmp_path: Path) -> None:
    """Negative controls."""
    text = RULES.read_text()
    assert right in text
    (tmp_path / "rules.yaml").write_text(text.replace(right, wrong))
    assert wrong_rules(tmp_path / "rules.yaml") != []


def promtool(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Prometheus' own judge of rules, over copies of the files, in `folder`."""
    program_ = find("promtool")
    if program_ is None:
        pytest.skip("no promtool: it is in Debian's package prometheus")
    for file in (RULES, RULE_TESTS):
        if not (folder / file.name).exists():
            shutil.copy(file, folder)
    command = [str(program_), *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_promtool_accepts_the_rules_and_their_tests(tmp_path: Path) -> None:
    checked = promtool(tmp_path, "check", "rules", "--lint-fatal", RULES.name)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool(tmp_path, "test", "rules", RULE_TESTS.name)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@wrong_rule
def test_promtool_finds_what_our_evaluator_finds(right: str, wrong: str, tmp_path: Path) -> None:
    """Negative controls."""
    (tmp_path / RULES.name).write_text(RULES.read_text().replace(right, wrong))
    tested = promtool(tmp_path, "test", "rules", RULE_TESTS.name)
    assert tested.returncode == 1 and "FAILED" in tested.stdout + tested.stderr


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    text = (DOCKER / "prometheus.yaml").read_text()
    text = text.replace("/etc/prometheus/rules.yaml", RULES.name)
    (tmp_path / "prometheus.yaml").write_text(text)
    checked = promtool(tmp_path, "check", "config", "prometheus.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (tmp_path / "prometheus.yaml").write_text(text.replace("scrape_interval", "scrape_every"))
    assert promtool(tmp_path, "check", "config", "prometheus.yaml").returncode == 1


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda"])
def test_hadolint_has_nothing_to_say(name: str) -> None:
    command = [str(program("deploy", "hadolint")), "--no-color", str(DOCKER / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "")
