"""Too little room for all: KV moves to host memory and back, and nobody's tokens change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from epd.engine import Engine, EngineRequest, Role, StepResult
from epd.errors import Overloaded
from epd.types import SamplingParams
from tests.engine.tiny import (
    Case,
    collect,
    finish,
    generate,
    greedy,
    hand_over,
    key,
    make_case,
    make_engine,
    make_request,
    prefix,
    run_alone,
    start,
)

ANSWER = 40
CASES = [make_case(seed, texts=(20 + seed,)) for seed in range(6)] + [
    make_case(9, texts=(5, 7), grids=((4, 3),)),
    make_case(10, texts=(9, 1, 4), grids=((2, 3), (3, 3))),
]
TIGHT = 96  # tokens: prompt and answer of one, and a tenth


def serve(
    engine: Engine, requests: Sequence[EngineRequest], cases: Sequence[Case] = ()
) -> tuple[dict[str, list[int]], list[StepResult], int]:
    """Let requests in one by one as there is room for a prompt and a token: tokens by name, and
    most host blocks that were ever used."""
    waiting = list(requests)
    known = dict(zip([r.key for r in requests], cases, strict=False))
    tokens: dict[str, list[int]] = {}
    results, most, steps = [], 0, 0
    while waiting or engine.has_work:
        if waiting:
            request = waiting[0]
            num = len(request.token_ids)
            case = known.get(request.key)
            asked = None if case is None else prefix(request, case)
            if engine.reserve(request.key, num + 1, asked, most_cached=num - 1) is not None:
                engine.start(waiting.pop(0))
        results.append(engine.step())
        collect(tokens, results[-1].tokens)
        engine.check()
        most = max(most, engine.host_blocks_used)
        steps += 1
        assert steps < 4000, "steps without progress"
    return tokens, results, most


@pytest.mark.parametrize(
    ("block_size", "cache"),
    [
        (16, True),
        (32, False),
        pytest.param(16, False, marks=pytest.mark.slow),
        pytest.param(32, True, marks=pytest.mark.slow),
    ],
)
def test_eight_requests_in_a_pool_for_little_more_than_one_equal_generate(
    cache: bool, block_size: int
) -> None:
    engine = make_engine(kv_tokens=TIGHT, block_size=block_size, max_step_tokens=24)
    requests = [make_request(f"r{n}", case, greedy(ANSWER)) for n, case in enumerate(CASES)]
    tokens, results, most = serve(engine, requests, CASES if cache else ())
    assert most > 0, "nobody was preempted"
    assert not any(result.failed for result in results)
    assert tokens == {f"r{n}": generate(case, ANSWER) for n, case in enumerate(CASES)}
    assert engine.used_blocks == engine.host_blocks_used == 0


def test_preempted_choices_go_on_exactly() -> None:
    """Penalties, seeds, shared pages: all as if nobody had been in the way."""
    sampling = SamplingParams(
        temperature=1.0, seed=4, n=2, repetition_penalty=1.2, presence_penalty=0.3, max_tokens=30
    )
    requests = [make_request(f"r{n}", CASES[n], replace(sampling, seed=n)) for n in range(4)]
    tokens, _, most = serve(make_engine(kv_tokens=112, max_step_tokens=24), requests)
    assert most > 0
    for number in range(4):
        alone = make_engine()
        start(alone, make_request(f"r{number}", CASES[number], replace(sampling, seed=number)))
        wanted = finish(alone)
        assert {name: tokens[name] for name in wanted} == wanted and len(wanted) == 2


def test_decode_workers_preempt_too() -> None:
    """Four hand-overs whose prompts just fit; their answers do not."""
    prefill, decode = make_engine(), make_engine(kv_tokens=160, max_step_tokens=8)
    for number in range(4):
        case = CASES[number]
        request = make_request(f"r{number}", case, greedy(ANSWER))
        start(prefill, replace(request, role=Role.PREFILL))
        (first,) = finish(prefill)[f"r{number}"]
        hand_over(prefill, decode, request, [(0, first)], room=1)
    most = 0
    tokens: dict[str, list[int]] = {}
    while decode.has_work:
        result = decode.step()
        assert not result.failed
        collect(tokens, result.tokens)
        decode.check()
        most = max(most, decode.host_blocks_used)
    assert most > 0
    assert tokens == {f"r{n}": generate(CASES[n], ANSWER)[1:] for n in range(4)}


def test_nobody_new_is_let_in_while_a_preempted_request_waits() -> None:
    engine = crowded()
    assert engine.free_tokens >= 16
    assert engine.reserve(key("new"), 1) is None
    engine.release(key("b"))
    assert engine.host_blocks_used == 0 and engine.reserve(key("new"), 1) == 0
    engine.release(key("new"))
    assert finish(engine)["a"]


def test_a_preempted_choice_may_be_ended() -> None:
    engine = crowded()
    engine.end_choice(key("b"), 0)
    assert engine.host_blocks_used == 0 and engine.has_work
    assert engine.step().ended == [key("b")]
    engine.check()


def crowded() -> Engine:
    """Request a runs, b is in host memory."""
    engine = make_engine(kv_tokens=80)
    for number, name in enumerate("ab"):
        assert engine.reserve(key(name), 32) == 0
        engine.start(make_request(name, CASES[number], greedy(ANSWER)))
    while not engine.host_blocks_used:
        engine.step()
    return engine


def test_without_host_memory_the_victim_is_to_be_placed_again() -> None:
    engine = make_engine(kv_tokens=80, host_bytes=0)
    for number, name in enumerate("ab"):
        assert engine.reserve(key(name), 32) == 0
        engine.start(make_request(name, CASES[number], greedy(ANSWER)))
    tokens: dict[str, list[int]] = {}
    failed = []
    while engine.has_work:
        result = engine.step()
        failed += result.failed
        collect(tokens, result.tokens)
        engine.check()
    assert [name for name, _ in failed] == [key("b")] and isinstance(failed[0][1], Overloaded)
    assert tokens["a"] == generate(CASES[0], ANSWER)
    assert tokens["b"] == generate(CASES[1], ANSWER)[: len(tokens["b"])]
    assert engine.used_blocks == 0


def test_kv_that_comes_back_wrong_changes_the_tokens() -> None:
    """Negative control: what is kept in host memory is what the request goes on with."""
    engine = crowded()
    wanted = generate(CASES[1], ANSWER)
    assert engine._cache._host is not None
    engine._cache._host.copy_(torch.flip(engine._cache._host, dims=(3,)))
    tokens = finish(engine)["b"]
    assert tokens != wanted[-len(tokens) :]
    assert run_alone(make_request("b", CASES[1], greedy(ANSWER))) == wanted
