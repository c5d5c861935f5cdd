"""MultiModalEmbeddingData: parts in any order become rows in prompt order."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epd.engine import MultiModalEmbeddingData
from epd.errors import InternalError, Unavailable
from epd.types import ItemKey, ItemLayout, Modality, Prompt, PromptItem

WIDTH = 3


def make_item(index: int, *, token_ids: int, spans: tuple[tuple[int, int], ...]) -> PromptItem:
    layout = ItemLayout(
        modality=Modality.IMAGE,
        token_ids=tuple(range(token_ids)),
        row_spans=spans,
        width=WIDTH,
        dtype="float32",
        content_key=b"",
    )
    return PromptItem(item=ItemKey("r", index, 0), encoder=f"encode-{index}", layout=layout)


# Tokens: 0-3 text, 4-13 item 0 (rows at 5-7 and 10-12), 14-15 text, 16-20 item 1 (rows 16-20), 21
PROMPT = Prompt(
    text=((1,) * 4, (2,) * 2, (3,)),
    items=(
        make_item(0, token_ids=10, spans=((1, 4), (6, 9))),
        make_item(1, token_ids=5, spans=((0, 5),)),
    ),
)
PLACES = [[5, 6, 7, 10, 11, 12], [16, 17, 18, 19, 20]]
ROWS = [torch.arange(18.0).view(6, WIDTH), 100 + torch.arange(15.0).view(5, WIDTH)]


def test_ready_ends_at_the_first_missing_row() -> None:
    data = MultiModalEmbeddingData(PROMPT)
    assert data.ready_tokens == 5
    data.add(1, 0, ROWS[1])
    assert data.ready_tokens == 5
    data.add(0, 4, ROWS[0][4:])
    data.add(0, 0, ROWS[0][:3])
    assert data.ready_tokens == 10
    data.add(0, 3, ROWS[0][3:4])
    assert data.ready_tokens == PROMPT.num_tokens == 22


def test_text_is_ready_at_once() -> None:
    data = MultiModalEmbeddingData(Prompt(text=((1, 2, 3),)))
    assert data.ready_tokens == 3
    assert data.gather(0, 3) is None


def test_gather_gives_places_and_rows_of_a_chunk() -> None:
    data = MultiModalEmbeddingData(PROMPT)
    for index, rows in enumerate(ROWS):
        data.add(index, 0, rows)
    found = data.gather(6, 12)
    assert found is not None
    assert found[0].tolist() == [0, 1, 4, 5, 6, 10, 11]
    assert torch.equal(found[1], torch.cat([ROWS[0][1:], ROWS[1][:2]]))
    assert data.gather(0, 5) is None and data.gather(13, 3) is None


@pytest.mark.parametrize("taken_back", [1, 2], ids=["before they are read", "meanwhile"])
def test_bytes_that_their_owner_took_back_are_no_rows(taken_back: int) -> None:
    """Whether the part is used whole, or as a copy of what an earlier part left of it."""
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks >= taken_back:
            raise Unavailable("encode-0 took its memory back")

    data = MultiModalEmbeddingData(PROMPT)
    data.add(0, 0, ROWS[0], check)
    data.add(1, 0, ROWS[1][:2])
    assert data.gather(16, 2) is not None, "the other's rows are theirs alone"
    with pytest.raises(Unavailable, match="took its memory back"):
        data.gather(4, 4)
    checks = 0
    with pytest.raises(Unavailable, match="took its memory back"):
        data.add(1, 0, ROWS[1], check)


def test_rows_of_prefilled_tokens_are_freed() -> None:
    data = MultiModalEmbeddingData(PROMPT)
    for row in range(6):
        data.add(0, row, ROWS[0][row : row + 1].clone())
    data.add(1, 0, ROWS[1])
    row_bytes = 4 * WIDTH
    assert data.held_bytes == 11 * row_bytes
    data.drop_before(11)
    assert data.held_bytes == 7 * row_bytes
    data.add(0, 2, ROWS[0][2:5].clone())
    assert data.held_bytes == 7 * row_bytes
    assert data.ready_tokens == 22
    data.drop_before(22)
    assert data.held_bytes == 0
    with pytest.raises(InternalError, match="row 0 is not there"):
        data.gather(16, 1)


def test_dropping_before_landing_frees_nothing_that_is_to_come() -> None:
    """A caller that drops too far must not make missing rows count as done."""
    data = MultiModalEmbeddingData(PROMPT)
    data.drop_before(22)
    assert data.ready_tokens == 5
    data.add(0, 0, ROWS[0])
    assert data.ready_tokens == 16


def test_skipped_rows_are_not_waited_for() -> None:
    """KV of the first 11 tokens was cached: rows 0 to 3 of item 0 may come all the same."""
    data = MultiModalEmbeddingData(PROMPT)
    data.add(0, 4, ROWS[0][4:].clone())
    data.skip_before(11)
    assert data.ready_tokens == 16 and data.held_bytes == 2 * 4 * WIDTH
    data.add(0, 0, ROWS[0])
    assert data.held_bytes == 2 * 4 * WIDTH
    found = data.gather(11, 5)
    assert found is not None and torch.equal(found[1], ROWS[0][4:])
    data.skip_before(22)
    assert data.ready_tokens == 22 and data.held_bytes == 0


def test_atomic_spans_are_those_of_items_that_ask_for_it() -> None:
    first, second = PROMPT.items
    atomic = replace(first, layout=replace(first.layout, atomic=True))
    data = MultiModalEmbeddingData(replace(PROMPT, items=(atomic, second)))
    assert data.atomic_spans == [(5, 8), (10, 13)]
    assert MultiModalEmbeddingData(PROMPT).atomic_spans == []


def test_closed_data_holds_nothing_and_takes_nothing() -> None:
    data = MultiModalEmbeddingData(PROMPT)
    data.add(0, 0, ROWS[0])
    data.close()
    data.add(1, 0, ROWS[1])
    assert data.held_bytes == 0


@pytest.mark.parametrize(
    ("index", "first_row", "rows", "reason"),
    [
        (2, 0, ROWS[0], "item 2 of 2"),
        (-1, 0, ROWS[0], "item -1 of 2"),
        (0, 1, ROWS[0], r"item 0 \(from encode-0\): rows 1 to 7 of 6"),
        (0, -1, ROWS[0][:2], "rows -1 to 1 of 6"),
        (0, 0, ROWS[0][:0], "rows 0 to 0 of 6"),
        (1, 0, ROWS[1][:, :2], r"item 1 \(from encode-1\): rows of shape \(5, 2\)"),
        (1, 0, ROWS[1].double(), "float64, the layout says width 3 and float32"),
        (1, 0, ROWS[1].flatten(), r"shape \(15,\)"),
    ],
)
def test_wrong_rows_are_refused_by_name(
    index: int, first_row: int, rows: torch.Tensor, reason: str
) -> None:
    data = MultiModalEmbeddingData(PROMPT)
    with pytest.raises(InternalError, match=reason):
        data.add(index, first_row, rows)
    assert data.held_bytes == 0 and data.ready_tokens == 5


@given(st.integers(0, 1 << 32))
def test_any_order_of_overlapping_parts_gives_the_same_rows(seed: int) -> None:
    """Parts are random ranges until all has landed; prefill takes random chunks meanwhile."""
    random = Random(seed)
    data = MultiModalEmbeddingData(PROMPT)
    done, taken = 0, []
    while done < PROMPT.num_tokens:
        if random.random() < 0.5 or data.ready_tokens == done:
            index = random.randint(0, 1)
            first = random.randrange(len(ROWS[index]))
            end = random.randint(first + 1, len(ROWS[index]))
            data.add(index, first, ROWS[index][first:end].clone())
        else:
            num = random.randint(1, data.ready_tokens - done)
            found = data.gather(done, num)
            if found is not None:
                taken += list(zip((found[0] + done).tolist(), found[1].tolist(), strict=True))
            done += num
            data.drop_before(done)
        assert data.held_bytes <= 11 * 4 * WIDTH
    want = [
        (place, row)
        for places, rows in zip(PLACES, ROWS, strict=True)
        for place, row in zip(places, rows.tolist(), strict=True)
    ]
    assert taken == want
    assert data.held_bytes == 0
