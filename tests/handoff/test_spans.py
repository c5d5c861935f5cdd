"""Spans against the plain thing: a set of integers."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from epd.handoff.spans import Spans

RANGES = st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair)))


def filled(ranges: list[tuple[int, int]]) -> tuple[Spans, set[int]]:
    """The same ranges in both."""
    spans, model = Spans(), set[int]()
    for start, end in ranges:
        spans.add(start, end)
        model |= set(range(start, end))
    return spans, model


@given(ranges=st.lists(RANGES, max_size=8), asked=RANGES)
def test_spans_behave_like_a_set_of_ints(
    ranges: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    """Whatever was added in whatever order: count, prefix, overlaps and missing agree."""
    spans, model = filled(ranges)
    inside = set(range(*asked))
    assert spans.count == len(model)
    assert spans.prefix == next(i for i in range(100) if i not in model)
    assert spans.overlaps(*asked) == bool(model & inside)
    holes = spans.missing(*asked)
    assert [i for hole in holes for i in range(*hole)] == sorted(inside - model)


@given(ranges=st.lists(RANGES, max_size=8))
def test_holes_are_as_long_as_they_can_be(ranges: list[tuple[int, int]]) -> None:
    """Neighbours join, so one hole is one pull."""
    spans, model = filled(ranges)
    holes = spans.missing(0, 40)
    assert all(start < end for start, end in holes)
    assert all(end in model or end == 40 for _, end in holes)
    assert all(start - 1 in model or start == 0 for start, _ in holes)


def test_nothing_is_inside_at_first() -> None:
    """All of a range is one hole."""
    spans = Spans()
    assert (spans.count, spans.prefix) == (0, 0)
    assert spans.missing(2, 5) == [(2, 5)]
    assert not spans.overlaps(0, 100)


def test_neighbours_are_one_span() -> None:
    """[0, 2) and [2, 4) leave a prefix of 4."""
    spans, _ = filled([(2, 4), (0, 2)])
    assert spans.prefix == 4
    assert not spans.overlaps(4, 5)


def test_an_empty_range_is_nothing() -> None:
    """It neither cuts a hole in two nor overlaps what is around it."""
    spans, _ = filled([(3, 3)])
    assert spans.missing(0, 5) == [(0, 5)]
    assert not spans.overlaps(0, 5)
    assert not filled([(0, 5)])[0].overlaps(3, 3)
