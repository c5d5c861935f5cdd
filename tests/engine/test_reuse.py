"""Cached prefixes: less is computed, the tokens are generate()'s, and what is stale would show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from epd.engine import Engine, EngineRequest, MultiModalEmbeddingData, Role
from epd.errors import InternalError
from epd.types import Prefix, Prompt, SamplingParams
from tests.engine.tiny import (
    Case,
    extend,
    finish,
    generate,
    greedy,
    hand_over,
    key,
    make_case,
    make_engine,
    make_request,
    prefix,
    start,
)

CASE = make_case(3, texts=(40, 1, 30), grids=((2, 2), (6, 7)))
PICTURE_FIRST = make_case(11, texts=(2, 40), grids=((9, 5),))
ANSWER = 36


@pytest.fixture(params=[16, 48])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Pages of one and of three hashed blocks; the books balance at the end."""
    made = make_engine(max_step_tokens=32, block_size=request.param)
    yield made
    made.check()


def whole_pages(engine: Engine, num_tokens: int) -> int:
    size = engine.num_tokens_capacity // engine._pool.num_blocks
    return num_tokens // size * size


def ask(engine: Engine, name: str, case: Case) -> tuple[list[int], int]:
    """The answer to a case, greedily, and how much of it was cached."""
    cached = start(engine, make_request(name, case, greedy(ANSWER)), case=case)
    return finish(engine)[name], cached


@pytest.mark.parametrize("case", [CASE, PICTURE_FIRST], ids=["two pictures", "picture first"])
def test_the_same_prompt_again_computes_its_end_only(engine: Engine, case: Case) -> None:
    assert ask(engine, "a", case) == (generate(case, ANSWER), 0)
    assert engine.used_blocks == 0 and engine.cached_blocks > 0
    num = len(case.token_ids)
    assert ask(engine, "b", case) == (generate(case, ANSWER), whole_pages(engine, num - 1))


def test_running_requests_share_what_one_of_them_has_computed(engine: Engine) -> None:
    start(engine, make_request("a", CASE, greedy(ANSWER)), case=CASE)
    while not engine.step().tokens:
        pass
    used = engine.used_blocks
    cached = start(engine, make_request("b", CASE, greedy(ANSWER)), case=CASE)
    assert cached and engine.used_blocks < 2 * used
    tokens = finish(engine)
    assert tokens["b"] == generate(CASE, ANSWER) == [*tokens["b"][:1], *tokens["a"]]


def test_a_second_turn_finds_the_first_ones_answer(engine: Engine) -> None:
    """KV of generated tokens is published too; with the pictures' delta in their positions."""
    answer, _ = ask(engine, "a", CASE)
    second = extend(CASE, [*answer, 5, 6, 7])
    tokens, cached = ask(engine, "b", second)
    assert tokens == generate(second, ANSWER)
    assert cached == whole_pages(engine, len(CASE.token_ids) + ANSWER - 1) > len(CASE.token_ids)


def test_rows_of_cached_tokens_are_not_waited_for(engine: Engine) -> None:
    """Of the second picture only what lies behind the cached tokens lands."""
    ask(engine, "a", CASE)
    data = MultiModalEmbeddingData(CASE.prompt)
    request = replace(make_request("b", CASE, greedy(ANSWER)), embeddings=data)
    cached = start(engine, request, case=CASE)
    first = max(0, CASE.prompt.rows_before(cached) - 4)
    assert cached > 40
    if first < 42:
        data.add(1, first, CASE.rows[1][first:].clone())
    assert finish(engine)["b"] == generate(CASE, ANSWER) and data.held_bytes == 0


@pytest.mark.parametrize("differs", ["salt", "content", "ids"])
def test_other_prompts_share_nothing(engine: Engine, differs: str) -> None:
    ask(engine, "a", PICTURE_FIRST)
    prompt = PICTURE_FIRST.prompt
    (item,) = prompt.items
    if differs == "content":
        other = replace(item, layout=replace(item.layout, content_key=b"other"))
        prompt = replace(prompt, items=(other,))
    elif differs == "ids":
        prompt = replace(prompt, text=((9, 9), prompt.text[1]))
    case = replace(PICTURE_FIRST, prompt=prompt)
    known = prefix(make_request("b", case, greedy(4)), case, salt="s" * (differs == "salt"))
    assert engine.reserve(key("b"), 100, known, most_cached=90) == 0
    engine.release(key("b"))


@pytest.mark.parametrize("off", ["request", "engine"])
def test_a_request_without_prefix_neither_uses_nor_publishes(off: str) -> None:
    engine = make_engine(prefix_cache=off == "request")
    case = CASE if off == "engine" else None
    for name in "ab":
        request = make_request(name, CASE, greedy(ANSWER))
        assert start(engine, request, case=case) == 0
        assert finish(engine)[name] == generate(CASE, ANSWER)
    assert engine.cached_blocks == 0
    assert start(engine, make_request("c", CASE, greedy(2)), case=CASE) == 0


def test_cached_kv_is_given_up_when_room_is_needed() -> None:
    engine = make_engine(kv_tokens=256)
    cases = [make_case(seed, texts=(100,)) for seed in range(4)]
    for number, case in enumerate(cases):
        assert ask(engine, f"r{number}", case) == (generate(case, ANSWER), 0)
        assert engine.used_blocks == 0 and engine.free_tokens == 256
    assert engine.cached_blocks == 15
    assert ask(engine, "last", cases[3]) == (generate(cases[3], ANSWER), 96)
    assert ask(engine, "first", cases[0]) == (generate(cases[0], ANSWER), 0)


def test_decode_takes_only_the_kv_that_it_does_not_hold() -> None:
    """Two turns: of the second one decode has the first one's prompt and answer."""
    prefill, decode = make_engine(), make_engine(block_size=32)
    answer: list[int] = []
    case, cached = CASE, []
    for turn in "ab":
        case = extend(case, answer) if answer else case
        request = replace(make_request(turn, case, greedy(ANSWER)), role=Role.PREFILL)
        start(prefill, request, case=case)
        (first,) = finish(prefill)[turn]
        cached.append(hand_over(prefill, decode, request, [(0, first)], case=case))
        prefill.release(request.key)
        answer = [first, *finish(decode)[turn]]
        assert answer == generate(case, ANSWER)
    assert cached[0] == 0 and cached[1] == (len(CASE.token_ids) + ANSWER - 1) // 32 * 32


def test_cached_kv_cannot_be_overwritten() -> None:
    engine = make_engine()
    ask(engine, "a", CASE)
    known = prefix(make_request("b", CASE, greedy(4)), CASE)
    cached = engine.reserve(key("b"), 130, known, most_cached=64)
    assert cached == 64
    with pytest.raises(InternalError, match="no room"):
        engine.exchange.write(key("b"), 63, 0, torch.zeros(2, 3, 1, 2, 16))
    engine.exchange.write(key("b"), 64, 0, torch.zeros(2, 3, 1, 2, 16))


def test_prefill_answers_from_cached_kv_what_it_would_compute() -> None:
    """Seeded sampling on a hit and on a miss."""
    sampling = SamplingParams(temperature=1.0, seed=3, max_tokens=ANSWER)
    engine = make_engine()
    found = []
    for name in "ab":
        start(engine, make_request(name, CASE, sampling), case=CASE)
        found.append(finish(engine)[name])
    assert found[0] == found[1]


def test_broken_kv_is_not_found_again() -> None:
    """NaN rows under a content key: the next request with good ones computes its own KV."""
    engine = make_engine(max_step_tokens=32)
    rows = (torch.full_like(PICTURE_FIRST.rows[0], torch.nan),)
    bad = replace(PICTURE_FIRST, rows=rows)
    start(engine, make_request("bad", bad, greedy(4)), case=bad)
    failed = []
    while engine.has_work:
        failed += engine.step().failed
    assert [name for name, _ in failed] == [key("bad")]
    assert ask(engine, "good", PICTURE_FIRST) == (generate(PICTURE_FIRST, ANSWER), 0)


# ---- negative controls


def lie(engine: Engine, request: EngineRequest, known: Prefix) -> list[int]:
    num = len(request.token_ids)
    assert engine.reserve(request.key, num + ANSWER, known, most_cached=num - 1)
    engine.start(request)
    return finish(engine)[request.key.request_id]


def test_a_stale_cached_page_changes_the_tokens() -> None:
    """Another prompt's KV, found because the hashes say so."""
    engine = make_engine()
    other = make_case(12, texts=(77,))
    ask(engine, "a", other)
    case = make_case(13, texts=(77,))
    request = make_request("b", case, greedy(ANSWER))
    assert lie(engine, request, prefix(request, other)) != generate(case, ANSWER)


def test_a_page_that_was_overwritten_changes_the_tokens() -> None:
    engine = make_engine()
    ask(engine, "a", CASE)
    engine._cache.values[:, :16] *= 0.5
    tokens, cached = ask(engine, "b", CASE)
    assert cached and tokens != generate(CASE, ANSWER)


def test_a_picture_under_anothers_key_changes_the_tokens() -> None:
    """Equal ids, equal content keys, other rows: only the hash tells pictures apart."""
    engine = make_engine()
    ask(engine, "a", PICTURE_FIRST)
    rows = (PICTURE_FIRST.rows[0].flip(0),)
    other = Case(
        Prompt(text=PICTURE_FIRST.prompt.text, items=PICTURE_FIRST.prompt.items),
        rows,
        PICTURE_FIRST.positions,
        PICTURE_FIRST.delta,
        PICTURE_FIRST.grids,
    )
    tokens, cached = ask(engine, "b", other)
    assert cached and tokens != generate(other, ANSWER)
