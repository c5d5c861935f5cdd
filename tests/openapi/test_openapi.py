"""schemathesis over the whole document of a real cluster: no 5xx, every answer as described."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.checkpoints import build
from tests.clients.environments import ROOT, program
from tests.clients.running import ENVIRONMENT, needs
from tests.cluster.running import Cluster

pytestmark = [pytest.mark.openapi, pytest.mark.timeout(3600), needs("openapi")]

EXAMPLES = 50
MODEL = "EPD_MODEL"  # as hooks.py reads it, which cannot be imported here
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
NEVER_FOUND = {
    "GET /cluster/requests/{request_id}",
    "POST /cluster/drain",
    "GET /v1/responses/{response_id}",
    "DELETE /v1/responses/{response_id}",
    "POST /v1/audio/transcriptions",
}
"""Made-up names of requests, workers and responses name none, and made-up bytes are no sound."""
ITSELF = "GET /openapi.json"
"""Is what schemathesis begins with."""

Statuses = Mapping[str, Counter[int]]


@dataclass(frozen=True)
class Run:
    """What schemathesis printed, and the statuses of the answers by operation."""

    code: int
    printed: str
    statuses: Statuses


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(build("qwen2_5_vl", tmp_path_factory.mktemp("openapi") / "tiny"), "EPD")
    yield cluster
    cluster.wait_until_idle()
    assert cluster.stop() == 0


@pytest.fixture(scope="module")
def document(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{cluster.url}/openapi.json").json()
    return found


@pytest.fixture(scope="module")
def run(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Once over everything: each bound of the schemas, then random requests."""
    home = tmp_path_factory.mktemp("schemathesis")
    report = home / "report.ndjson"
    argv = [program("openapi", "schemathesis"), "run", f"{cluster.url}/openapi.json"]
    argv += ["--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"]
    argv += ["--max-examples", str(EXAMPLES), "--seed", "1", "--continue-on-failure"]
    argv += ["--request-timeout", "60", "--generation-database", "none", "--no-color"]
    argv += ["--report", "ndjson", "--report-ndjson-path", report]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.openapi.hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(part) for part in argv],
        cwd=home,
        env={**ENVIRONMENT, **hooks, MODEL: cluster.model, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=3500,
    )
    return Run(done.returncode, done.stdout + done.stderr, _statuses(report))


def _statuses(report: Path) -> Statuses:
    found: dict[str, Counter[int]] = {}
    for line in report.read_text().splitlines():
        if (finished := json.loads(line).get("ScenarioFinished")) is None:
            continue
        recorder = finished["recorder"]
        counted = found.setdefault(recorder["label"], Counter())
        for interaction in recorder.get("interactions", {}).values():
            counted[interaction["response"]["status_code"]] += 1
    return found


def _operations(document: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_answer_is_as_the_document_says(run: Run) -> None:
    assert run.code == 0, run.printed
    assert not any(status >= 500 for counted in run.statuses.values() for status in counted)


def test_every_operation_was_asked_often(run: Run, document: dict[str, Any]) -> None:
    """One that takes nothing has a single example."""
    operations = _operations(document)
    assert set(run.statuses) == set(operations) - {ITSELF}
    taking = {
        name for name, found in operations.items() if {"requestBody", "parameters"} & set(found)
    }
    few = {name: run.statuses[name] for name in taking if run.statuses[name].total() < EXAMPLES}
    assert not few


def test_every_operation_did_what_it_is_for(run: Run) -> None:
    """Answers that are all errors would show nothing."""
    refused = {name for name, counted in run.statuses.items() if not counted[200]}
    assert refused <= NEVER_FOUND
