"""Which backend is taken, and what is said of the others."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace

import pytest
import torch

from epd.attention import Wanted, choose, kernels
from epd.attention.choice import why_not
from epd.attention.flash import MODULES
from epd.errors import ConfigError
from tests.attention import flash_attn_stand_in

HOPPER = Wanted(
    device=torch.device("cuda"),
    dtype=torch.bfloat16,
    head_dim=128,
    block_size=16,
    capability=(9, 0),
)
CPU = replace(HOPPER, device=torch.device("cpu"), capability=(0, 0))


def install(monkeypatch: pytest.MonkeyPatch, *versions: int) -> None:
    for number, name in MODULES.items():
        monkeypatch.delitem(sys.modules, name, raising=False)
        if number in versions:
            monkeypatch.setitem(sys.modules, name, flash_attn_stand_in.module(number))


def test_a_cpu_takes_the_reference(caplog: pytest.LogCaptureFixture) -> None:
    """Though kernels could be interpreted."""
    with caplog.at_level(logging.INFO):
        assert choose("auto", CPU).name == "sdpa"
    (record,) = caplog.records
    assert "not triton: it needs a CUDA device, this is cpu" in record.message


@pytest.mark.parametrize(
    ("changes", "installed", "taken"),
    [
        ({}, (), "triton"),
        ({}, (2,), "triton"),
        ({}, (2, 3), "flash"),
        ({"block_size": 256}, (2,), "flash"),
        ({"block_size": 512, "capability": (8, 0)}, (2, 3), "flash"),
        ({"capability": (10, 0)}, (2, 3), "triton"),
        ({"dtype": torch.float32}, (3,), "triton"),
        ({"head_dim": 320}, (2, 3), "sdpa"),
        ({"head_dim": 8}, (), "sdpa"),
        ({"capability": (7, 5)}, (2,), "sdpa"),
        ({"capability": (7, 5), "dtype": torch.float16}, (2,), "triton"),
    ],
)
def test_the_first_that_can_do_it_is_taken(
    changes: dict[str, object],
    installed: tuple[int, ...],
    taken: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, *installed)
    assert choose("auto", replace(HOPPER, **changes)).name == taken  # type: ignore[arg-type]


def test_pages_that_flash_attn_cannot_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, 2)
    with pytest.raises(ConfigError, match=r"multiples of 256 tokens; language.block_size is 272"):
        choose("flash", replace(HOPPER, block_size=272))


def test_what_is_named_and_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(
        ConfigError, match="language.attention is flash: flash-attn is not installed"
    ):
        choose("flash", HOPPER)
    assert choose("sdpa", HOPPER).name == "sdpa"


def test_an_interpreter_must_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels.interpreted():
        pytest.skip("kernels are compiled here")
    assert choose("triton", CPU).name == "triton"
    monkeypatch.setattr(kernels, "interpreted", lambda: False)
    assert why_not("triton", CPU) == "it needs a CUDA device, this is cpu"
