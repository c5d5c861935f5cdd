"""The reference backend against plain dense attention, one sequence at a time."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.bias import causal_lower_right

from epd.attention import SdpaBackend, attend, sdpa
from tests.attention.pages import RAGGED, RandomPages
from tests.sends import Sends

SCALING = 8**-0.5


class Pages(RandomPages):
    """Those of the reference's tests: its backend, in float32."""

    def __init__(
        self, shapes: list[tuple[int, int]], *, unwritten: float, blocks: int = 40
    ) -> None:
        super().__init__(shapes, unwritten=unwritten, blocks=blocks)

    def attend(self, window: int | None = None) -> torch.Tensor:
        return self.attended(SdpaBackend(), window=window)


@pytest.mark.parametrize("unwritten", [0.0, torch.nan], ids=["zeros", "nan"])
def test_ragged_batch_equals_dense_attention(unwritten: float) -> None:
    """Slots that a sequence has not written may hold anything, even NaN, and do not matter."""
    pages = Pages(RAGGED, unwritten=unwritten)
    torch.testing.assert_close(pages.attend(), pages.expected(), atol=2e-6, rtol=1e-5)


def test_large_groups_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on gathered tokens changes how many calls are made, not the result."""
    monkeypatch.setattr(sdpa, "MAX_GATHERED", 40)
    pages = Pages([(20 + n, 1) for n in range(9)], unwritten=torch.nan)
    assert len(SdpaBackend().plan(pages.batch).parts) > 4
    torch.testing.assert_close(pages.attend(), pages.expected(), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "calls"),
    [([33, 40, 35, 34], 1), ([40, 9, 100, 33], 1), ([40] * 3, 1), ([600, 10, 5, 3], 2)],
)
def test_decodes_share_a_call_while_padding_is_cheap(lengths: list[int], calls: int) -> None:
    pages = Pages([(num, 1) for num in lengths], unwritten=torch.nan, blocks=60)
    assert len(SdpaBackend().plan(pages.batch).parts) == calls
    torch.testing.assert_close(pages.attend(), pages.expected(), atol=2e-6, rtol=1e-5)


def test_decodes_that_share_a_call_may_stand_apart() -> None:
    """A chunk between two decodes: their rows are no slice of the batch."""
    pages = Pages([(20, 1), (30, 4), (25, 1)], unwritten=torch.nan)
    assert len(SdpaBackend().plan(pages.batch).parts) == 2
    torch.testing.assert_close(pages.attend(), pages.expected(), atol=2e-6, rtol=1e-5)


def test_the_mask_that_cuda_kernels_know_by_name_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def named(num: int, kv_len: int, pages: torch.Tensor) -> torch.Tensor:
        bias: torch.Tensor = causal_lower_right(num, kv_len)
        return bias

    monkeypatch.setattr(sdpa, "_lower_right", named)
    pages = Pages([(64, 13), (33, 32)], unwritten=torch.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the CPU has none of these kernels
        out = pages.attend()
    torch.testing.assert_close(out, pages.expected(), atol=2e-6, rtol=1e-5)


def test_nothing_waits_for_what_is_sent_of_a_plan() -> None:
    """Decodes of different lengths, apart from each other, and a chunk behind what was there."""
    pages = Pages([(20, 1), (30, 4), (25, 1)], unwritten=0.0)
    with Sends() as sends:
        SdpaBackend().plan(pages.batch).within(10)
    assert len(sends.not_waiting) > 4 and not sends.waiting


def test_new_keys_and_values_reach_their_pages_only() -> None:
    pages = Pages(RAGGED, unwritten=torch.nan)
    assert not pages.written()
    pages.attend()
    assert pages.written()


def test_attend_has_the_shape_that_transformers_wants() -> None:
    pages = Pages([(7, 3)], unwritten=0.0)
    out, weights = attend(
        SimpleNamespace(layer_idx=0),
        pages.query[None],
        pages.new_keys[None],
        pages.new_values[None],
        None,
        plan=SdpaBackend().bind(pages.batch),
        scaling=SCALING,
        dropout=0.0,
    )
    assert out.shape == (1, 3, 6, 8) and weights is None


@pytest.mark.parametrize("window", [1, 5, 16, 64])
def test_a_window_hides_what_is_farther_away(window: int) -> None:
    pages = Pages(RAGGED, unwritten=torch.nan)
    found = pages.attend(window)
    torch.testing.assert_close(found, pages.expected(window), atol=2e-6, rtol=1e-5)
    assert (found - pages.expected(window + 1)).abs().max() > 1e-3  # negative control


def test_rotation_that_was_put_off_is_made_up_for() -> None:
    """This backend does not rotate: the step does it for it."""
    pages = Pages(RAGGED, unwritten=torch.nan)
    unturned, rotary = pages.unturned()
    found = unturned.attended(SdpaBackend(), rotary=rotary)
    torch.testing.assert_close(found, pages.expected(), atol=2e-6, rtol=1e-5)
