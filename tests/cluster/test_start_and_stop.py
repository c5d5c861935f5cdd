"""`epd serve` starts whole or not at all, and leaves nothing on the machine when it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cluster.ends import check_orphans_end, check_stops_while_requests_run
from tests.cluster.running import Cluster, eventually
from tests.cluster.traces import Traces, children_of, dead_segments, runtime_base

pytestmark = pytest.mark.alone

SECONDS = 60.0
"""A start is mostly imports; the machine may be busy with other things."""


@dataclass(frozen=True, slots=True)
class Failed:
    """How a start ended that could not work."""

    code: int
    log: str
    seconds: float


def start_in_vain(model: Path, *settings: str) -> Failed:
    """`epd serve` of what cannot be served. Nothing of it may be left on the machine."""
    argv = [sys.executable, "-m", "epd", "serve", str(model), "--port", "0"]
    for setting in settings:
        argv += ["--set", setting]
    before = dead_segments()
    began = time.monotonic()
    with runtime_base() as base:
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(base)},
        )
        seen: set[psutil.Process] = set()

        def ended() -> bool:
            seen.update(children_of(process.pid))
            return process.poll() is not None

        try:
            eventually(ended, "the start fails", SECONDS)
        finally:
            process.kill()
            log = process.communicate()[0]
        assert not [child for child in seen if child.is_running()]
        assert list(base.iterdir()) == []
    assert dead_segments() <= before
    return Failed(process.returncode, log, time.monotonic() - began)


def copy_of(path: Path, to: Path) -> Path:
    return Path(shutil.copytree(path, to / "broken"))


def test_an_architecture_that_is_not_supported(path: Path, tmp_path: Path) -> None:
    """The error names it and lists those there are."""
    model = copy_of(path, tmp_path)
    config = json.loads((model / "config.json").read_text())
    config["architectures"] = ["LlamaForCausalLM"]
    (model / "config.json").write_text(json.dumps(config))

    failed = start_in_vain(model)

    assert failed.code == 2
    last = failed.log.splitlines()[-1]
    assert "LlamaForCausalLM" in last
    assert "Qwen2_5_VLForConditionalGeneration" in last


def test_weights_that_are_damaged(path: Path, tmp_path: Path) -> None:
    """The gateway is ready long before; the first worker that reads them ends the start."""
    model = copy_of(path, tmp_path)
    (weights,) = model.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])

    failed = start_in_vain(model)

    assert failed.code == 1
    said = [line for line in failed.log.splitlines() if line.startswith("epd serve: ")]
    assert "did not start" in said[-1]
    assert str(model) in said[-1]
    assert "epd is ready" not in failed.log


def test_a_port_in_use(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = start_in_vain(path, f"gateway.port={port}")
    assert failed.code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in failed.log


@pytest.mark.parametrize("setting", ["language.kv_bytes", "wire.shm_bytes"])
def test_more_memory_than_there_is(path: Path, setting: str) -> None:
    """Refused as a whole before any process starts, naming what to lower."""
    failed = start_in_vain(path, f"{setting}={1 << 60}", "topology=2E2P2D")

    assert failed.code == 2
    assert f"(lower {setting})" in failed.log.splitlines()[-1]
    assert "gateway-0" not in failed.log


def test_a_role_by_hand_that_needs_more_memory_than_there_is(path: Path) -> None:
    """It loads nothing and registers with nobody."""
    argv = [sys.executable, "-m", "epd", "decode", "--set", f"model={path}"]
    argv += ["--set", "gateways=[tcp://127.0.0.1:9]", "--set", f"language.host_bytes={1 << 60}"]

    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS)

    assert done.returncode == 2
    assert "this decode worker would need" in done.stderr.splitlines()[-1]
    assert "preempted KV 1.0 EiB (lower language.host_bytes)" in done.stderr


@contextmanager
def cluster_with_traces(path: Path, topology: str) -> Iterator[tuple[Cluster, Traces]]:
    with runtime_base() as base:
        cluster = Cluster(
            path,
            topology,
            "media.allow_private_addresses=true",
            env={"XDG_RUNTIME_DIR": str(base)},
        )
        try:
            yield cluster, Traces.of(cluster.process.pid, base)
        finally:
            cluster.process.kill()
            cluster.stop()


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["1E1P1D", "1E1PD", "EPD"])
def test_sigterm_stops_everything_while_requests_run(path: Path, topology: str) -> None:
    with cluster_with_traces(path, topology) as (cluster, traces):
        check_stops_while_requests_run(cluster, traces, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["1E1P1D", "1E1PD"])
def test_children_of_a_killed_supervisor_end_by_themselves(path: Path, topology: str) -> None:
    with cluster_with_traces(path, topology) as (cluster, traces):
        check_orphans_end(cluster, traces)
