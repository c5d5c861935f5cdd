"""The reference backend against plain dense attention, one sequence at a time."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.bias import causal_lower_right

from epd.attention import PagedBatch, PagedSequence, SdpaBackend, attend, sdpa
from epd.errors import UnsupportedModel

HEADS, KV_HEADS, DIM, BLOCK, BLOCKS = 6, 2, 8, 16, 40
SCALING = DIM**-0.5
# (kv_len, num_new): decodes of several lengths, whole prompts, later chunks, a chunk of one token
RAGGED = [(1, 1), (16, 1), (17, 1), (70, 1), (5, 5), (40, 40), (64, 13), (33, 32), (19, 2), (90, 1)]


class Pages:
    """Random dense keys and values per sequence, and the same in scattered pages."""

    def __init__(
        self, shapes: list[tuple[int, int]], *, unwritten: float, blocks: int = BLOCKS
    ) -> None:
        generator = torch.Generator().manual_seed(len(shapes))

        def rand(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        free = torch.randperm(blocks, generator=generator).tolist()
        pages = torch.full((2, 1, blocks * BLOCK, KV_HEADS, DIM), unwritten)
        self.queries = [rand(HEADS, num, DIM) for _, num in shapes]
        self.dense = [rand(2, KV_HEADS, kv_len, DIM) for kv_len, _ in shapes]
        sequences = []
        for (kv_len, num), dense in zip(shapes, self.dense, strict=True):
            own = [free.pop() for _ in range(-(-kv_len // BLOCK))]
            sequences.append(PagedSequence(num, kv_len, own))
            for token in range(kv_len - num):
                slot = own[token // BLOCK] * BLOCK + token % BLOCK
                pages[:, 0, slot] = dense[:, :, token]
        self.batch = PagedBatch(tuple(sequences), pages[0], pages[1], BLOCK)
        new = [
            dense[:, :, kv_len - num :]
            for (kv_len, num), dense in zip(shapes, self.dense, strict=True)
        ]
        self.query = torch.cat(self.queries, 1)
        self.new_keys, self.new_values = torch.cat(new, 2)

    def attend(self) -> torch.Tensor:
        step = SdpaBackend().bind(self.batch)
        return step.attend(self.query, self.new_keys, self.new_values, layer=0, scaling=SCALING)

    def expected(self) -> torch.Tensor:
        return torch.cat(
            [_dense(query, *dense) for query, dense in zip(self.queries, self.dense, strict=True)]
        )


def _dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """[heads, n, dim] against [kv_heads, L, dim], in double."""
    group = HEADS // KV_HEADS
    num, kv_len = query.shape[1], key.shape[1]
    scores = query.double() @ key.double().repeat_interleave(group, 0).mT * SCALING
    hidden = torch.ones(num, kv_len, dtype=torch.bool).triu(kv_len - num + 1)
    chances = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    out: torch.Tensor = chances @ value.double().repeat_interleave(group, 0)
    return out.transpose(0, 1).float()


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


def test_new_keys_and_values_reach_their_pages_only() -> None:
    pages = Pages(RAGGED, unwritten=-7.0)
    pages.attend()
    for sequence, dense in zip(pages.batch.sequences, pages.dense, strict=True):
        for token in range(sequence.kv_len):
            slot = sequence.blocks[token // BLOCK] * BLOCK + token % BLOCK
            assert torch.equal(pages.batch.keys[0, slot], dense[0, :, token])
            assert torch.equal(pages.batch.values[0, slot], dense[1, :, token])
    written = sum(kv_len for kv_len, _ in RAGGED)
    assert (
        int((pages.batch.keys != -7.0).flatten(1).view(BLOCKS * BLOCK, -1).any(1).sum()) == written
    )


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
    assert out.shape == (1, 3, HEADS, DIM) and weights is None


def test_sliding_windows_are_refused() -> None:
    """Silently attending to everything would be a wrong answer."""
    pages = Pages([(7, 3)], unwritten=0.0)
    with pytest.raises(UnsupportedModel, match="sliding window"):
        attend(
            SimpleNamespace(layer_idx=0),
            pages.query[None],
            pages.new_keys[None],
            pages.new_values[None],
            None,
            plan=SdpaBackend().bind(pages.batch),
            scaling=SCALING,
            sliding_window=4,
        )
