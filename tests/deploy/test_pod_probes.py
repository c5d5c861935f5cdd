"""The probes of every pod of launch/kubernetes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.deploy.overlays import Pod
from tests.deploy.test_policy import config_of, each_pod


@each_pod
def test_every_pod_has_three_probes(overlay: str, pod: Pod) -> None:
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert name in pod.main


@each_pod
def test_probes_start_no_python_and_touch_no_device(overlay: str, pod: Pod, tmp_path: Path) -> None:
    """A gateway is asked over HTTP whether its loop turns; workers keep files, where they look."""
    config = config_of(overlay, pod, tmp_path)
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = pod.main[name]
        if pod.arguments[0] == "gateway":
            assert probe["httpGet"]["path"] == ("/ready" if name == "readinessProbe" else "/health")
            continue
        command = probe["exec"]["command"]
        assert command[0] in ("test", "sh")
        file = "ready" if name == "readinessProbe" else "alive"
        assert f"{config.probe_dir}/{file}" in " ".join(command)


@each_pod
def test_loading_a_model_may_take_half_an_hour_and_a_step_minutes(overlay: str, pod: Pod) -> None:
    if pod.arguments[0] == "gateway":
        return
    start, alive = pod.main["startupProbe"], pod.main["livenessProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 1800
    assert int(alive["exec"]["command"][-1].rpartition(" ")[2]) >= 300


@each_pod
@pytest.mark.parametrize(("age_s", "alive"), [(None, True), (0, True), (250, True), (400, False)])
def test_a_worker_is_alive_unless_its_loop_has_not_turned_for_long(
    overlay: str, pod: Pod, age_s: int | None, alive: bool, tmp_path: Path
) -> None:
    """Without the file it still loads its weights."""
    if pod.arguments[0] == "gateway":
        return
    if age_s is not None:
        (tmp_path / "alive").touch()
        then = time.time() - age_s
        os.utime(tmp_path / "alive", (then, then))
    command = pod.main["livenessProbe"]["exec"]["command"]
    here = [part.replace("/run/epd", str(tmp_path)) for part in command]
    assert (subprocess.run(here, timeout=30, check=False).returncode == 0) == alive
