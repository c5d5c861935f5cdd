"""The pods of two overlays as processes here, each on a loopback address of its own.

Arguments, configuration, probes, the init container's command and the signal that ends a pod are
the manifests' own; only folders, the checkpoint, the sizes and the device are the test's. In
NENPND-tp the language workers have two ranks, on the CPU.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from epd.cli.main import main
from tests.checkpoints import build
from tests.cluster.running import eventually
from tests.deploy.exported import exported
from tests.deploy.overlays import Pod, of_kind, pods
from tests.deploy.promql import names
from tests.deploy.test_monitoring import expressions

pytestmark = [pytest.mark.deploy, pytest.mark.alone]

ROLES = ("gateway", "encode", "fused", "prefill", "decode")
ADDRESSES = {role: f"127.9.9.{number}" for number, role in enumerate(ROLES, 1)}
SMALL = (
    "dtype=float32",
    "device=cpu",
    "threads=1",
    "log_format=line",
    "language.kv_tokens=4096",
    "language.host_bytes=67108864",
    "encode.rows_bytes=67108864",
    "encode.cache_bytes=67108864",
    "encode.prepared_bytes=67108864",
    "encode.fetch_bytes=67108864",
    "encode.queued_bytes=67108864",
    "encode.decoders=1",
    "media.image.max_pixels=65536",
)
ADMIN = "an-operators-key"
KEY = "a-clients-key"
URL = f"http://{ADDRESSES['gateway']}:8000"


class Running:
    """One pod: its folder stands for the container's own."""

    def __init__(self, pod: Pod, role: str, folder: Path, model: Path) -> None:
        self.pod = pod
        self.folder = folder
        values = {"POD_NAME": f"{role}-a", "POD_IP": ADDRESSES[role], "OMP_NUM_THREADS": "1"}
        arguments = [self.here(one, values | {"ADMIN_KEY": ADMIN}) for one in pod.main["args"]]
        mine = [f"model={model}", f"wire.curve_dir={folder}/curve", *SMALL]
        if role != "gateway":
            mine.append(f"gateways=[tcp://{ADDRESSES['gateway']}:7400]")
        argv = [sys.executable, "-m", "epd", *arguments, *(f"--set={one}" for one in mine)]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(argv, stderr=log)

    def here(self, text: str, values: dict[str, str]) -> str:
        for name, value in values.items():
            text = text.replace(f"$({name})", value)
        return text.replace("/etc/", f"{self.folder}/etc/").replace(
            "/run/epd", f"{self.folder}/probes"
        )

    def probe(self, name: str) -> bool:
        """What kubelet would hear."""
        probe = self.pod.main[name]
        if "httpGet" in probe:
            return httpx.get(URL + probe["httpGet"]["path"]).is_success
        command = [self.here(one, {}) for one in probe["exec"]["command"]]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def mounted(overlay: str, pod: Pod, folder: Path, keys: Path) -> None:
    """What volumes and the init container bring."""
    [config] = of_kind(overlay, "ConfigMap")
    (folder / "etc" / "epd").mkdir(parents=True)
    (folder / "etc" / "epd" / "epd.yaml").write_text(config["data"]["epd.yaml"])
    (folder / "etc" / "epd-api-keys").mkdir()
    (folder / "etc" / "epd-api-keys" / "keys.yaml").write_text(f"- {KEY}\n")
    secret = folder / "etc" / "epd-curve"
    secret.mkdir()
    for file in keys.iterdir():
        (secret / file.name).write_bytes(file.read_bytes())
        (secret / file.name).chmod(0o640)  # as a Secret's files are, under an fsGroup
    (folder / "curve").mkdir()
    [init] = pod.spec["initContainers"]
    command = [
        part.replace("/etc/epd-curve", str(secret)).replace("/run/curve", str(folder / "curve"))
        for part in init["command"]
    ]
    subprocess.run(command, check=True, timeout=30)


@pytest.fixture(params=["1E1PD", "NENPND-tp"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Running]]:
    model = build("qwen2_5_vl", tmp_path / "tiny")
    assert main(["keys", str(tmp_path / "keys")]) == 0
    found: dict[str, Running] = {}
    with ExitStack() as stack:
        for pod in pods(request.param):
            role = pod.arguments[0]
            mounted(request.param, pod, tmp_path / role, tmp_path / "keys")
            found[role] = Running(pod, role, tmp_path / role, model)
            stack.callback(found[role].process.wait, 60)
            stack.callback(found[role].process.kill)
        yield found


def ask(path: str, key: str, body: dict[str, Any] | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    if body is None:
        return httpx.get(URL + path, headers=headers)
    return httpx.post(URL + path, headers=headers, json=body, timeout=60)


def test_pods_find_each_other_answer_are_watched_and_leave(running: dict[str, Running]) -> None:
    """In the order of a pod's life, for each step needs the one before."""
    gateway, last = running["gateway"], list(running.values())[-1]
    eventually(lambda: all(map(is_ready, running.values())), "every pod is ready", 120)
    for one in running.values():
        assert one.probe("startupProbe") and one.probe("livenessProbe")

    assert ask("/v1/models", "wrong").status_code == 401
    model = ask("/v1/models", KEY).json()["data"][0]["id"]
    body = {"model": model, "prompt": "Hello", "max_tokens": 4, "ignore_eos": True}
    answer = ask("/v1/completions", KEY, body).json()
    assert answer["usage"]["completion_tokens"] == 4

    eventually(lambda: missing() == set(), "every metric of dashboards and rules is scraped")

    ranks = [child.pid for child in psutil.Process(last.process.pid).children()]
    assert bool(ranks) == ("decode" in running)
    last.process.send_signal(signal.SIGTERM)
    assert last.process.wait(60) == 0
    assert not any(map(psutil.pid_exists, ranks))
    assert not last.probe("readinessProbe") and not last.probe("startupProbe")
    eventually(lambda: not is_ready(gateway), "a gateway without a stage is not ready")
    assert gateway.probe("livenessProbe")
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(60) == 0


def is_ready(one: Running) -> bool:
    assert one.process.poll() is None, (one.folder / "log").read_text()[-2000:]
    try:
        return one.probe("readinessProbe")
    except httpx.ConnectError:
        return False


def missing() -> set[str]:
    """What dashboards, rules and scalers read and a scrape with the operator's key has not."""
    scraped = set()
    for line in ask("/metrics", ADMIN).text.splitlines():
        if not line.startswith("#"):
            scraped.add(line.partition(" ")[0].partition("{")[0])
    wanted = {name for expr in expressions().values() for name in names(expr).metrics}
    assert wanted <= set(exported())
    only_when_it_happens = {
        "epd_retries_total",
        "epd_failures_total",
        "epd_dropped_messages_total",
        "epd_items_total",
        "epd_item_rows_total",
        "epd_batch_items_bucket",
    }
    return {name for name in wanted - scraped - only_when_it_happens if not name.startswith("epd:")}
