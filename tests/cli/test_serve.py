"""What `epd serve` makes of a configuration before it starts anything."""

from __future__ import annotations

import json
import os
import shlex
import stat
import time
from pathlib import Path

import pytest

from epd.cli import default_model, environment
from epd.cli.runtime import STALE_AFTER_S, remove_stale, runtime_folder
from epd.cli.serve import child_specs, pin_port, ready_line, resolve
from epd.config import Config, GatewayConfig, load_config
from epd.errors import ConfigError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "Some-Model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_clients_use_the_folders_name_unless_another_is_set(model: Path) -> None:
    assert resolve(Config(model=str(model))).gateway.served_model_name == "Some-Model"
    named = Config(model=str(model), gateway=GatewayConfig(served_model_name="m"))
    assert resolve(named).gateway.served_model_name == "m"


@pytest.mark.parametrize(("topology", "share"), [("EPD", 8), ("1E1PD", 4), ("2E3P4D", 1)])
def test_workers_share_the_cores(
    model: Path, monkeypatch: pytest.MonkeyPatch, topology: str, share: int
) -> None:
    monkeypatch.setattr(environment, "num_cores", lambda: 8)
    assert resolve(Config(model=str(model), topology=topology)).threads == share
    assert resolve(Config(model=str(model), topology=topology, threads=3)).threads == 3


def test_each_child_gets_its_role_its_own_file_and_the_gateways_address(
    model: Path, tmp_path: Path
) -> None:
    specs = child_specs(resolve(Config(model=str(model), threads=1)), tmp_path)
    assert [spec.name for spec in specs] == ["gateway-0", "encode-0", "prefill-0", "decode-0"]
    gateway, encode = specs[:2]
    assert gateway.argv[0] == "gateway" and gateway.load is None  # torch is not its business
    assert encode.argv[0] == "encode" and encode.load is not None
    config = load_config(encode.argv[-1])
    assert config.name == "encode-0"
    assert config.listen == f"ipc://{tmp_path}"
    assert config.gateways == (f"ipc://{tmp_path}/gateway-0.c",)
    assert load_config(gateway.argv[-1]).gateways == ()


def test_threads_of_workers_spin_for_a_short_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = environment.worker_environment(3)
    assert environ["OMP_NUM_THREADS"] == "3" and int(environ["GOMP_SPINCOUNT"]) < 100_000
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert environment.worker_environment(3)["GOMP_SPINCOUNT"] == "7"


def test_a_gateway_on_a_free_port_is_started_again_on_the_same(model: Path, tmp_path: Path) -> None:
    config = resolve(Config(model=str(model), gateway=GatewayConfig(port=0)))
    gateway = child_specs(config, tmp_path)[0]
    assert load_config(gateway.argv[-1]).gateway.port == 0
    pin_port(config, tmp_path, {"gateway-0": {"ready": True, "url": "http://[::1]:4321"}})
    assert load_config(gateway.argv[-1]).gateway.port == 4321
    assert load_config(gateway.argv[-1]).listen == f"ipc://{tmp_path}"


def test_the_ready_line_is_one_line_with_a_curl_whose_body_is_json(model: Path) -> None:
    config = resolve(Config(model=str(model)))
    line = ready_line(config, {"gateway-0": {"ready": True, "url": "http://h:1"}})
    assert "\n" not in line
    assert "epd is ready: http://h:1/v1 (Some-Model, 1E1P1D)" in line
    curl = shlex.split(line.partition("try: ")[2])
    assert curl[:2] == ["curl", "http://h:1/v1/chat/completions"]
    assert json.loads(curl[-1])["model"] == "Some-Model"


def test_keys_reach_the_gateway_as_hashes_alone(model: Path, tmp_path: Path) -> None:
    """Neither the files of the children nor what they are started with say a key."""
    config = load_config(None, [f'model="{model}"', 'gateway.api_keys=["sk-secret"]'])
    specs = child_specs(resolve(config), tmp_path)
    assert load_config(specs[0].argv[-1]).gateway.api_keys == config.gateway.api_keys
    for path in tmp_path.glob("*.yaml"):
        assert "sk-secret" not in path.read_text()
    assert "sk-secret" not in repr(specs)
    assert "-H 'Authorization: Bearer KEY'" in ready_line(
        config, {"gateway-0": {"url": "http://h"}}
    )


def test_name_listen_and_gateways_are_refused() -> None:
    with pytest.raises(ConfigError, match="by hand"):
        resolve(Config(listen="tcp://127.0.0.1"))


def test_without_a_model_the_embedded_one_is_served() -> None:
    found = resolve(Config())
    assert found.model == str(default_model.FOLDER)
    assert found.gateway.served_model_name == default_model.NAME
    assert resolve(Config(gateway=GatewayConfig(served_model_name="m"))).model == found.model


def test_the_default_model_takes_little_memory_unless_told_otherwise() -> None:
    config = load_config(None, ["language.kv_bytes=7000000"])
    found = default_model.with_small_caches(config)
    assert found.language.kv_bytes == 7_000_000
    assert found.language.host_bytes < Config().language.host_bytes
    assert found.language.block_size == Config().language.block_size


def test_the_runtime_folder_is_ours_alone_and_gone_afterwards(tmp_path: Path) -> None:
    with runtime_folder(tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "gateway-0.c").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_owners_folder_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    later = time.time() + STALE_AFTER_S + 1
    dead = tmp_path / "epd-dead"
    dead.mkdir()
    (dead / "lock").touch()
    stranger = tmp_path / "epd-not-a-runtime-folder"
    stranger.mkdir()
    with runtime_folder(tmp_path) as living:
        assert remove_stale(tmp_path, now=time.time()) == []
        assert remove_stale(tmp_path, now=later) == [dead]
        assert living.is_dir()
    assert stranger.is_dir()


def test_a_runtime_folder_has_room_for_a_socket_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "x" * 90)
    longest = environment.runtime_base() / "epd-12345678" / "prefill-999.c"
    assert len(os.fsencode(longest)) <= 107
