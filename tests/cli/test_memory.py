"""A cluster is taken or refused as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from epd.cli.main import main
from epd.cli.memory import check_cluster, estimate
from epd.config import load_config
from epd.errors import ConfigError
from epd.models.spec import read_checkpoint
from epd.observe.machine import available_host
from tests.checkpoints import build


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen2_5_vl", tmp_path_factory.mktemp("checkpoints") / "tiny")


def test_workers_that_fit_alone_but_not_together_are_refused(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    half = f"language.host_bytes={available_host() * 6 // 10}"
    small = ["device=cpu", "language.kv_bytes=1000000", "gateway.media_budget_bytes=1000000"]
    small += ["encode.decoders=1", "media.image.max_pixels=1000000"]
    small += [f"encode.{name}_bytes=1000000" for name in ("rows", "prepared", "fetch", "queued")]
    check_cluster(load_config(None, ["topology=1E1P1D", half, *small]), checkpoint)
    with pytest.raises(ConfigError, match=r"1E1P2D on one machine would need .* available"):
        check_cluster(load_config(None, ["topology=1E1P2D", half, *small]), checkpoint)


def test_check_prints_the_memory_of_every_process_and_of_all(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"model: {path}\ntopology: 2E1PD\ndevice: cpu\n")
    assert main(["check", str(file)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")]
    for name in ("gateway-0", "encode-0", "encode-1", "fused-0"):
        assert any(line.startswith(f"# memory of {name}: ") for line in lines)
    assert lines[4].startswith("# memory: total ")


def test_check_says_that_a_cluster_would_not_fit_here_yet_the_file_is_right(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"model: {path}\ndevice: cpu\nlanguage:\n  kv_bytes: {1 << 50}\n")
    assert main(["check", str(file)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("# it does not fit: 1E1P1D on this machine would need 2.0 PiB")


def test_check_without_a_checkpoint_says_why_memory_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("topology: EPD\n")
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "# memory: not known (model is not set)"


def test_heads_that_ranks_do_not_divide_are_refused_before_anything_starts(path: Path) -> None:
    config = load_config(None, ["topology=1E1P1D", "device=cpu", "placement.decode.tp=3"])
    with pytest.raises(ConfigError, match=r"tp is 3: tiny has 2 KV heads, and 3 does not divide 2"):
        check_cluster(config, read_checkpoint(path))


def test_every_rank_is_counted(path: Path, tmp_path: Path) -> None:
    config = load_config(None, ["topology=1E1P1D", "device=cpu", "placement.decode.tp=2"])
    found = list(estimate(config.model_copy(update={"model": str(path)})))
    assert [line.partition(":")[0] for line in found[3:5]] == [
        "memory of decode-0 rank 0",
        "memory of decode-0 rank 1",
    ]
