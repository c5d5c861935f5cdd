"""What is given to flash-attn is what it takes, and what it gives is attention."""

from __future__ import annotations

import sys

import pytest
import torch

from epd.attention import kernels
from epd.attention.flash import MODULES, FlashBackend
from tests.attention import flash_attn_stand_in
from tests.attention.pages import RAGGED, RandomPages
from tests.attention.test_triton import fixed

PAGE = {2: 256, 3: 16}
SHORT = [(40, 1), (300, 1), (37, 7), (260, 5), (19, 1)]


@pytest.fixture(params=[2, 3])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A stand-in in place of the package, which needs a card."""
    if not kernels.interpreted():
        pytest.skip("kernels are compiled here")
    number = int(request.param)
    monkeypatch.setitem(sys.modules, MODULES[number], flash_attn_stand_in.module(number))
    flash_attn_stand_in.calls.clear()
    return number


def pages(version: int, shapes: list[tuple[int, int]]) -> RandomPages:
    return RandomPages(shapes, heads=4, block=PAGE[version], blocks=60, dtype=torch.float16)


@pytest.mark.parametrize("window", [None, 9])
def test_ragged_batches(version: int, window: int | None) -> None:
    batch = pages(version, SHORT)
    found = batch.attended(FlashBackend(version), window=window).float()
    torch.testing.assert_close(found, batch.expected(window), atol=2e-3, rtol=2e-3)
    assert (found - batch.expected(4)).abs().max() > 0.05  # negative control
    assert batch.written()
    ragged = "varlen 2" if version == 2 else "kvcache 3 ragged"
    assert flash_attn_stand_in.calls == [f"kvcache {version}", ragged]


def test_decodes_alone(version: int) -> None:
    batch = pages(version, [(40, 1), (300, 1), (1, 1)])
    found = batch.attended(FlashBackend(version)).float()
    torch.testing.assert_close(found, batch.expected(), atol=2e-3, rtol=2e-3)
    assert flash_attn_stand_in.calls == [f"kvcache {version}"]


def test_decodes_over_fixed_buffers(version: int) -> None:
    """Tables that are wider than this step needs."""
    batch = pages(version, [(40, 1), (300, 1)])
    tokens = fixed(batch, rows=2, width=30)
    found = batch.attended(FlashBackend(version), batch=tokens).float()
    torch.testing.assert_close(found, batch.expected(), atol=2e-3, rtol=2e-3)
    assert batch.written()


def test_rotation_comes_with_the_write_of_keys(version: int) -> None:
    batch = pages(version, [(40, 1), (37, 7)])
    unturned, rotary = batch.unturned()
    found = unturned.attended(FlashBackend(version), rotary=rotary).float()
    torch.testing.assert_close(found, batch.expected(), atol=5e-3, rtol=5e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_package_itself(number: int, dtype: torch.dtype) -> None:
    pytest.importorskip(MODULES[number])
    if number == 3 and torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("version 3 is for Hopper")
    batch = RandomPages(
        [(3000, 1), *RAGGED, (900, 300)],
        heads=28,
        kv_heads=4,
        dim=128,
        block=PAGE[number],
        blocks=80 if number == 2 else 400,
        dtype=dtype,
        device="cuda",
    )
    found = batch.attended(FlashBackend(number)).float()
    torch.testing.assert_close(found, batch.expected(), atol=2e-2, rtol=2e-2)
