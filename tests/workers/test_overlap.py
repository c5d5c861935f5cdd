"""What overlaps, and what does not where the settings say so; the tokens are the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.engine.tiny import generate, greedy, make_case
from tests.workers.stage import Stage

PICTURES = make_case(1, texts=(20, 30, 9), grids=((3, 4), (4, 4)))
WHOLE = 91
BEFORE_THE_SECOND = 65
"""Tokens up to the first row of the second picture."""


@contextmanager
def stage(**config: Any) -> Iterator[Stage]:
    made = Stage(**config)
    try:
        yield made
        made.check_nothing_held()
    finally:
        made.close()


def offered(stage: Stage) -> list[int]:
    return [ready.num_tokens for ready in stage.offered]


def answer(stage: Stage) -> list[int]:
    """How much KV was offered while the second picture was still in its tower."""
    stage.late = []
    key = stage.ask(PICTURES, greedy(6))
    stage.run()
    early = offered(stage)
    stage.go_on()
    stage.run()
    assert stage.tokens(key) == generate(PICTURES, 6)
    return early


def test_what_has_landed_is_prefilled_and_its_kv_sent_while_the_rest_is_encoded() -> None:
    with stage(overlap_tokens=1) as running:
        assert answer(running)[-1] == BEFORE_THE_SECOND
        assert running.kv_bytes_sent and offered(running)[-1] == WHOLE


def test_a_little_text_before_a_missing_row_waits_for_it() -> None:
    """The pictures' own rows do not wait: they would fill the memory of the next one's."""
    with stage() as running:
        assert answer(running)[-1] < BEFORE_THE_SECOND
        assert offered(running)[-1] == WHOLE


def test_without_overlap_nothing_is_prefilled_before_the_last_row() -> None:
    with stage(overlap=False) as running:
        assert answer(running) == []


def test_rows_that_do_not_fit_in_together_are_used_as_they_land_all_the_same() -> None:
    """Else they would wait for each other."""
    with stage(overlap=False, overlap_tokens=1, rows_bytes=2048) as running:
        assert answer(running)[-1] == BEFORE_THE_SECOND


def test_without_overlap_of_the_hand_off_all_kv_is_offered_at_once() -> None:
    with stage(overlap_handoff=False) as running:
        assert answer(running) == []
        assert offered(running) == [WHOLE]
