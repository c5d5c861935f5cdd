"""Towers of every family on a device: the CPU's rows, and no value of it is waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from epd.attention.towers import VARLEN, takes_ends
from epd.models import towers as loading
from epd.models.adapter import Prepared
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.towers import Towers, load_towers
from tests.checkpoints import BUILDERS, FAMILIES
from tests.models.media import prepared
from tests.waits import waits

cuda: Any = torch.cuda  # much of it is untyped

EVERY = [name for name in BUILDERS if not name.endswith("_inside")]  # the same towers elsewhere
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture
def family(request: pytest.FixtureRequest, path_of: Callable[[str], Path]) -> Checkpoint:
    return read_checkpoint(path_of(request.param))


every = pytest.mark.parametrize("family", EVERY, indirect=True)


def towers_of(checkpoint: Checkpoint, device: str = "cpu", dtype: str = "float32") -> Towers:
    modalities = checkpoint.spec.modalities
    return load_towers(checkpoint, modalities=modalities, device=device, dtype=dtype)


def moved(items: Sequence[Prepared], to: str | torch.dtype) -> list[Prepared]:
    """What towers compute with, as one of a GPU finds it; counts and grids stay."""
    return [
        replace(
            item,
            inputs={
                name: tensor.to(to) if tensor.is_floating_point() else tensor
                for name, tensor in item.inputs.items()
            },
        )
        for item in items
    ]


# ---- here


@every
def test_a_forward_looks_at_no_value_of_its_device(family: Checkpoint) -> None:
    """Where there are no values, only shapes, any look fails, and so does what mixes devices."""
    here, there = towers_of(family), towers_of(family)
    items = prepared(here)
    there._model.to("meta")
    nowhere = Towers(there._adapter, there._model, there._processors)
    assert nowhere.device.type == "meta"
    for rows, expected in zip(
        nowhere.encode(moved(items, "meta")), here.encode(items), strict=True
    ):
        assert rows.is_meta and rows.shape == expected.shape


def test_a_look_at_a_value_would_be_seen() -> None:
    """The control."""
    with pytest.raises(RuntimeError, match="meta"):
        torch.ones(1, device="meta").item()


# ---- on a card


@pytest.mark.gpu
@pytest.mark.simulated
@every
def test_rows_on_a_card_equal_those_of_the_cpu(family: Checkpoint) -> None:
    here, there = towers_of(family), towers_of(family, "cuda")
    items = prepared(here)
    for rows, expected in zip(there.encode(moved(items, "cuda")), here.encode(items), strict=True):
        assert rows.is_cuda
        torch.testing.assert_close(rows.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@every
def test_rows_in_bfloat16_are_as_near_as_those_of_one_call_per_item(
    family: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One attention call for all items, or transformers' own ways: neither may be further from
    float32 than the other, all items in one batch."""
    here, packed = towers_of(family), towers_of(family, "cuda", "bfloat16")
    monkeypatch.setattr(loading, "varlen_kernel", lambda *_: None)
    apart = towers_of(family, "cuda", "bfloat16")
    layers = [layer for layer in packed._model.modules() if takes_ends(layer)]
    assert all(layer.config._attn_implementation == VARLEN for layer in layers)
    items = prepared(packed)
    exact = here.encode(moved(moved(items, "cpu"), torch.float32))
    for ours, theirs, right in zip(packed.encode(items), apart.encode(items), exact, strict=True):
        assert ours.dtype == torch.bfloat16
        assert off(ours, right) < 1.3 * off(theirs, right) + 1e-3
        assert off(ours.roll(1, 0), right) > 5 * off(ours, right)  # negative control


def off(rows: torch.Tensor, exact: torch.Tensor) -> float:
    """How far, as a share of their size."""
    return float((rows.cpu().float() - exact.float()).norm() / exact.float().norm())


@pytest.mark.gpu
@pytest.mark.parametrize(
    "dtype", [pytest.param("float32", marks=pytest.mark.simulated), "bfloat16"]
)
@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_a_forward_on_a_card_waits_for_nothing(family: Checkpoint, dtype: str) -> None:
    towers = towers_of(family, "cuda", dtype)
    items = prepared(towers)
    towers.encode(items)  # kernels are loaded
    with waits() as who:
        towers.encode(items)
    assert not who


@pytest.mark.gpu
@pytest.mark.simulated
def test_a_wait_would_be_seen() -> None:
    """The controls."""
    ones: Any = torch.ones(1, device="cuda")
    event: Any = cuda.Event()
    event.record()
    with waits() as who, pytest.raises(RuntimeError):
        ones.item()
    assert not who
    with waits() as who:
        event.synchronize()
    assert who == {"test_a_wait_would_be_seen"}
