"""Which devices the ranks of which worker get."""

from __future__ import annotations

from pathlib import Path

import pytest

from epd.cli.serve import child_config
from epd.config import Placement, load_config
from epd.errors import ConfigError

FOUR = ("cuda:0", "cuda:1", "cuda:2", "cuda:3")


def test_workers_take_their_ranks_devices_in_order_and_then_from_the_beginning() -> None:
    placement = Placement(tp=2, devices=FOUR)
    dealt = [placement.of_worker(number).devices for number in range(3)]
    assert dealt == [FOUR[:2], FOUR[2:], FOUR[:2]]
    assert [placement.of_worker(1).device(rank, "cuda") for rank in range(2)] == list(FOUR[2:])


def test_encoders_are_spread_over_their_devices(tmp_path: Path) -> None:
    config = load_config(None, ["topology=2E1P1D", "placement.encode.devices=[cuda:0, cuda:1]"])
    for number in range(2):
        child = child_config(config, "encode", f"encode-{number}", tmp_path)
        assert child.placement.encode.device(0, "cuda") == f"cuda:{number}"
    assert child.placement.decode == config.placement.decode


def test_without_a_list_ranks_begin_at_the_first_device() -> None:
    assert [Placement(tp=2).device(rank, "cuda") for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert Placement().device(0, "cuda") == "cuda"
    assert Placement(tp=2).device(1, "cpu") == "cpu"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("placement.prefill.devices=[gpu0]", "placement.prefill.devices: 'gpu0' is no device"),
        ("placement.decode={tp: 2, devices: [cuda:0]}", "1 devices cannot be dealt .* tp 2"),
        ("placement.decode={tp: 2, devices: [cuda:0, cuda:0]}", "as many GPUs"),
        ("placement.decode={tp: 2, devices: [cuda:0, cpu]}", "as many GPUs"),
        ("placement.encode.tp=2", "start more encode workers"),
        ("placement.decode.share=1.5", "placement.decode.share"),
    ],
)
def test_a_placement_that_cannot_work_is_refused_by_name(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, [setting])
