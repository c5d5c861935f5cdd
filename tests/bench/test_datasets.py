"""What is asked, as values: nothing is encoded here."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.bench.datasets import DATASETS, Measure, Shape, asks
from epd.bench.flags import DATASETS as NAMES

MADE = ("random", "image", "video", "audio", "mixed")
MIX = {"text": 1.0, "image": 1.0, "video": 1.0, "audio": 1.0}


def test_every_name_is_a_data_set() -> None:
    assert set(NAMES) == set(DATASETS)


@pytest.mark.parametrize("name", MADE)
def test_equal_shapes_give_equal_requests_and_other_seeds_others(name: str) -> None:
    shape = Shape(name=name, num=6, mix=MIX, input_len=40)
    assert asks(shape) == asks(shape)
    assert asks(shape) != asks(Shape(name=name, num=6, mix=MIX, input_len=40, seed="2"))


@given(ratio=st.floats(0, 1), full=st.integers(1, 200))
def test_lengths_lie_between_their_share_and_themselves(ratio: float, full: int) -> None:
    found = asks(Shape(num=5, input_len=full, output_len=full, range_ratio=ratio))
    for ask in found:
        assert max(1, int(full * ratio)) <= len(ask.text.split()) <= full
        assert ask.output_tokens is not None
        assert max(1, int(full * ratio)) <= ask.output_tokens <= full


def test_words_are_as_many_as_the_server_needs_for_the_tokens() -> None:
    shape = Shape(num=1, input_len=300, range_ratio=1.0, measure=Measure(per_word=3.0))
    assert len(asks(shape)[0].text.split()) == 100


def test_a_request_has_so_many_pictures() -> None:
    assert {len(ask.items) for ask in asks(Shape(name="image", num=9, image_count=3))} == {3}
    drawn = asks(Shape(name="image", num=60, image_count=3, random_image_count=True))
    assert {len(ask.items) for ask in drawn} == {1, 2, 3}


@given(
    hit_rate=st.floats(0, 1),
    num=st.integers(1, 40),
    count=st.integers(1, 3),
    pool=st.integers(1, 9),
)
def test_exactly_the_hit_rates_share_of_items_is_from_the_pool(
    hit_rate: float, num: int, count: int, pool: int
) -> None:
    shape = Shape(name="image", num=num, image_count=count, hit_rate=hit_rate, pool=pool)
    items = [item for ask in asks(shape) for item in ask.items]
    again = set(shape.pooled("image"))
    assert len(again) == pool
    assert sum(item in again for item in items) == round(hit_rate * (num * count))
    new = [item for item in items if item not in again]
    assert len(set(new)) == len(new)


def test_a_mix_has_the_shares_of_its_weights_in_any_order() -> None:
    found = [ask.kind for ask in asks(Shape(name="mixed", num=40, mix={"text": 3, "audio": 1}))]
    assert Counter(found) == {"text": 30, "audio": 10}
    assert found != sorted(found, reverse=True)
