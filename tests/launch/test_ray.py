"""Roles as Ray actors: the plan without Ray, and a Ray cluster of three nodes on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from epd.config import load_config
from launch.ray.__main__ import main
from launch.ray.cluster import read_ray_cluster
from launch.ray.plan import HEAD, options, settings
from tests.cluster.front import eventually
from tests.ray_nodes import ray_nodes

ROOT = Path(__file__).parents[2]
TREE: dict[str, Any] = {
    "model": "/models/m",
    "settings": ["wire.insecure=true", "drain_s=0"],
    "roles": {"encode": 2, "prefill": {"cpus": 2}, "decode": {"count": 2, "gpus": 0.5}},
    "start_timeout_s": 60,
}
# `python -m epd ROLE ... --ready-fd N --parent-fd M`, ending when the other end of M is closed.
PYTHON = """\
#!/usr/bin/env python3
import json, os, sys
args = dict(zip(sys.argv, sys.argv[1:]))
os.write(int(args["--ready-fd"]), json.dumps({"ready": True, "url": "u"}).encode() + b"\\n")
os.read(int(args["--parent-fd"]), 1)
"""


def cluster_file(folder: Path, **changes: Any) -> Path:
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump({**TREE, **changes}, sort_keys=False))
    return file


def test_every_actor_has_a_name_needs_and_settings_that_load(tmp_path: Path) -> None:
    cluster = read_ray_cluster(cluster_file(tmp_path))
    wanted = cluster.wanted()
    assert list(wanted) == [
        *("gateway-0", "encode-0", "encode-1", "prefill-0", "decode-0", "decode-1")
    ]
    for name, (role, actors) in wanted.items():
        needs = options(cluster, name, role, actors)
        assert (needs["name"], needs["lifetime"], needs["max_restarts"]) == (name, "detached", -1)
        given = settings(cluster, name, role, actors, "10.0.0.1")
        config = load_config(None, [each.replace("{address}", "10.0.0.7") for each in given])
        assert (config.name, config.model) == (name, "/models/m")
        assert config.gateways == (() if role == "gateway" else ("tcp://10.0.0.1:7400",))
    assert options(cluster, "gateway-0", *wanted["gateway-0"])["resources"] == {HEAD: 0.001}
    assert options(cluster, "decode-1", *wanted["decode-1"])["num_gpus"] == 0.5


def test_a_dry_run_prints_every_actor_and_needs_no_ray(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["start", str(cluster_file(tmp_path)), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "# decode-1: num_cpus=1, num_gpus=0.5" in told
    assert "-m epd decode --set wire.insecure=true" in told
    assert main(["start", str(ROOT / "launch" / "ray" / "cluster.yaml"), "--dry-run"]) == 0


def test_a_wrong_file_is_refused_with_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["start", str(cluster_file(tmp_path, roles={"encoder": 1}))]) == 2
    assert "cluster.yaml: roles.encoder" in capsys.readouterr().err
    assert main(["start", str(cluster_file(tmp_path, settings=["dtypo=x"]))]) == 2
    assert "dtypo: unknown key" in capsys.readouterr().err


@pytest.fixture
def three_nodes() -> Iterator[Any]:
    """Nodes of one Ray cluster, all on loopback."""
    with ray_nodes(6, "127.0.0.2", "127.0.0.3", "127.0.0.4") as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.filterwarnings("default")
def test_ray_starts_again_what_dies_and_moves_what_was_on_a_lost_node(
    three_nodes: Any, tmp_path: Path
) -> None:
    """A role is killed, then an actor, then a whole node; each time all roles serve again."""
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    roles = {"encode": {"count": 2, "cpus": 3}, "decode": 2, "prefill": 1}
    file = cluster_file(tmp_path, python=str(python), roles=roles)
    import ray

    assert main(["start", str(file), "--address", three_nodes.address]) == 0

    def said(name: str) -> dict[str, Any]:
        return dict(ray.get(ray.get_actor(name, namespace="epd").ready.remote(60), timeout=60))

    def differs(name: str, before: dict[str, Any]) -> bool:
        try:
            now = said(name)
        except ray.exceptions.RayError:
            return False
        return bool(now.get("ready")) and now["pid"] != before["pid"]

    for victim in ("pid", "actor"):
        before = said("decode-1")
        os.kill(before[victim], signal.SIGKILL)
        eventually(partial(differs, "decode-1", before), "decode-1 is back", 60)
    status = ["status", str(file), "--address", three_nodes.address]
    three_nodes.remove_node(three_nodes.list_all_nodes()[-1])
    eventually(lambda: main(status) == 0, "all are on the nodes that are left", 60)
    smaller = cluster_file(tmp_path, python=str(python), roles={**roles, "decode": 1})
    assert main(["start", str(smaller), "--address", three_nodes.address]) == 0
    with pytest.raises(ValueError, match="decode-1"):
        ray.get_actor("decode-1", namespace="epd")
    assert main(["stop", str(smaller), "--address", three_nodes.address]) == 0
