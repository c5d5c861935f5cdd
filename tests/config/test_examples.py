"""The files in configs/: each loads, says what it is for, and each hosts' file makes a cluster."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from epd.cli.main import main as epd
from epd.config import load_config
from epd.config.topology import Topology
from epd.errors import ConfigError
from launch.cluster import read_cluster
from launch.multi_node.__main__ import main as multi_node
from launch.plan import Process, processes

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
HOSTS = sorted((ROOT / "configs" / "hosts").glob("*.yaml"))


def name(path: Path) -> str:
    return path.stem


def plan(stem: str) -> dict[str, Process]:
    cluster = read_cluster(ROOT / "configs" / "hosts" / f"{stem}.yaml")
    return {process.name: process for process in processes(cluster)}


@pytest.mark.parametrize("file", CONFIGS, ids=name)
def test_a_configuration_loads_and_begins_with_what_it_is_for(file: Path) -> None:
    load_config(file)
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize("file", HOSTS, ids=name)
def test_a_file_of_hosts_has_every_stage_and_can_be_started(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run, with keys made as the file says."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    there = tmp_path / "configs" / "hosts" / file.name
    if "keys:" in file.read_text():
        assert epd(["keys", str(there.parent / "cluster-keys")]) == 0
    assert multi_node(["start", str(there), "--dry-run"]) == 0
    assert "launch gateway-0" in capsys.readouterr().out


def test_eight_gpus_have_one_worker_each_whoever_starts_them() -> None:
    """`epd serve` deals the devices of the configuration, and so does a plan for several hosts."""
    workers = [p for p in plan("8-gpus-4E2P2D").values() if p.role != "gateway"]
    devices = [device for p in workers for device in p.config.placement.of(p.role).devices]
    assert devices == [f"cuda:{number}" for number in range(8)]
    roles = [process.role for process in workers]
    assert [roles.count(role) for role in ("encode", "prefill", "decode")] == [4, 2, 2]
    config = load_config(ROOT / "configs" / "8-gpus-4E2P2D.yaml")
    assert dict(Topology.parse(config.topology).workers) == Counter(roles)
    served = [
        device
        for role, number in dict(Topology.parse(config.topology).workers).items()
        for worker in range(number)
        for device in config.placement.of(role).of_worker(worker).devices
    ]
    assert served == devices


def test_gpus_of_a_crew_and_devices_of_its_role_are_refused(tmp_path: Path) -> None:
    """With CUDA_VISIBLE_DEVICES=4 there is no cuda:4."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    file = tmp_path / "configs" / "hosts" / "8-gpus-4E2P2D.yaml"
    text = file.read_text().replace("prefill: 2", 'prefill: {count: 2, gpus: ["4", "5"]}')
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"prefill-0 has gpus '4' and placement.prefill.devices"):
        processes(read_cluster(file))


def test_sound_and_pictures_have_encoders_of_their_own() -> None:
    found = plan("audio-apart")
    kinds = [found[f"encode-{number}"].config.encode.modalities for number in range(3)]
    assert [set(kind) for kind in kinds] == [{"image", "video"}, {"image", "video"}, {"audio"}]


def test_encoders_are_on_cpus_and_language_workers_on_gpus() -> None:
    devices = {p.role: p.config.device for p in plan("cpu-encoders").values()}
    assert devices["encode"] == "cpu"
    assert devices["prefill"] == devices["decode"] == "cuda"
