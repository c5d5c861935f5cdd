"""Several choices of one prompt: one prefill, shared pages, each as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from epd.engine import Engine, Role, StepResult
from epd.types import FinishReason, SamplingParams, TokenLogprobs
from tests.engine.tiny import (
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
    reference_model,
    run_alone,
    start,
)

CASE = make_case(2, texts=(5, 7), grids=((4, 3),))
LONG = make_case(4, texts=(130,))
SAMPLING = SamplingParams(temperature=1.0, seed=11, n=3, max_tokens=24)
NAMES = ["r", "r.1", "r.2"]


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = make_engine(max_step_tokens=32)
    yield made
    made.check()


def alone(choice: int, sampling: SamplingParams = SAMPLING) -> list[int]:
    """The same choice as the only one of its request."""
    engine = make_engine()
    start(engine, make_request("r", CASE, replace(sampling, n=1, first_choice=choice)))
    (tokens,) = finish(engine).values()
    return tokens


def test_each_choice_says_what_it_says_alone(engine: Engine) -> None:
    """One prefill: the prompt is computed once. Choices differ, and share its full page."""
    start(engine, make_request("r", CASE, SAMPLING), room=0)
    result = engine.step()
    assert [run.choice for run in result.tokens] == [0, 1, 2]
    assert [run.first_index for run in result.tokens] == [0, 0, 0]
    engine.step()
    assert engine.used_blocks == 4, "a full page for all, and one for each"
    engine.check()
    rest = finish(engine)
    assert all(alone(c)[2:] == rest[name] for c, name in enumerate(NAMES))
    assert len({tuple(answer) for answer in rest.values()}) == 3


def test_greedy_choices_equal_generate(engine: Engine) -> None:
    start(engine, make_request("r", CASE, greedy(20, n=3)))
    assert finish(engine) == dict.fromkeys(NAMES, generate(CASE, 20))


@pytest.mark.parametrize("block_size", [16, 32])
def test_choices_are_handed_over_with_their_first_tokens(block_size: int) -> None:
    prefill, decode = make_engine(), make_engine(block_size=block_size, max_step_tokens=2)
    request = make_request("r", CASE, SAMPLING)
    start(prefill, replace(request, role=Role.PREFILL))
    first = finish(prefill)
    choices = [(choice, first[name][0]) for choice, name in enumerate(NAMES)]
    hand_over(prefill, decode, request, choices, room=1)
    prefill.release(request.key)
    rest = finish(decode)
    assert all(first[name] + rest[name] == alone(c) for c, name in enumerate(NAMES))
    assert prefill.used_blocks == decode.used_blocks == 0


def test_choices_go_on_after_their_first_tokens_in_part(engine: Engine) -> None:
    """One ended with its first token: decode gets the others, under their own numbers."""
    prefill = make_engine()
    request = make_request("r", CASE, SAMPLING)
    start(prefill, replace(request, role=Role.PREFILL))
    first = finish(prefill)
    hand_over(prefill, engine, request, [(2, first["r.2"][0])])
    assert finish(engine) == {"r.2": alone(2)[1:]}


def test_choices_end_one_by_one(engine: Engine) -> None:
    """At a stop token each, and the request with the last of them."""
    sampling = replace(SAMPLING, stop_token_ids=tuple(range(0, 300, 7)))
    start(engine, make_request("r", CASE, sampling))
    ends: dict[int, int] = {}
    ended = []
    tokens: dict[str, list[int]] = {}
    while engine.has_work:
        result = engine.step()
        collect(tokens, result.tokens)
        for run in result.tokens:
            assert run.choice not in ends
            if run.finish_reason is not None:
                ends[run.choice] = run.first_index
        ended += [(name, len(ends)) for name in result.ended]
        engine.check()
    assert ended == [(key("r"), 3)] and len(set(ends.values())) > 1
    assert [tokens[name] for name in NAMES] == [alone(c, sampling) for c in range(3)]


def test_a_choice_that_nobody_needs_any_more_ends_alone(engine: Engine) -> None:
    start(engine, make_request("r", CASE, SAMPLING))
    for _ in range(3):
        engine.step()
    engine.end_choice(key("r"), 1)
    engine.end_choice(key("r"), 1)
    engine.end_choice(key("r"), 9)
    engine.end_choice(key("unknown"), 0)
    rest = finish(engine)
    assert rest.keys() == {"r", "r.2"} and rest["r.2"] == alone(2)[3:]


def test_ending_the_last_choice_ends_the_request(engine: Engine) -> None:
    """The next step says so, without a forward."""
    start(engine, make_request("r", CASE, SAMPLING))
    engine.step()
    for choice in range(3):
        engine.end_choice(key("r"), choice)
    assert engine.used_blocks == 0 and engine.has_work
    assert engine.step() == StepResult(ended=[key("r")])
    assert not engine.has_work


@pytest.mark.parametrize("role", [Role.FULL, Role.PREFILL])
def test_choices_may_end_before_they_begin(engine: Engine, role: Role) -> None:
    start(engine, replace(make_request("r", LONG, SAMPLING), role=role))
    engine.step()
    engine.end_choice(key("r"), 0)
    engine.check()
    runs = []
    while engine.has_work:
        runs += engine.step().tokens
        engine.check()
    assert {run.choice for run in runs} == {1, 2}
    engine.release(key("r"))


def test_a_prefill_whose_choices_all_ended_keeps_its_kv(engine: Engine) -> None:
    request = make_request("r", CASE, replace(SAMPLING, max_tokens=1))
    start(engine, replace(request, role=Role.PREFILL))
    result = engine.step()
    assert result.ended == [key("r")]
    assert {run.finish_reason for run in result.tokens} == {FinishReason.LENGTH}
    assert engine.exchange.read(key("r"), 0, 26, 0, 3).shape[2] == 26
    engine.release(key("r"))
    assert engine.used_blocks == 0


def test_the_head_computes_one_row_for_all_choices(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    logits = engine._model.logits

    def count(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(len(hidden))
        return logits(hidden)

    monkeypatch.setattr(engine._model, "logits", count)
    start(engine, make_request("r", CASE, SAMPLING))
    engine.step()
    assert seen == [1]


def test_a_page_shared_without_a_copy_changes_the_tokens() -> None:
    """Negative control: all choices write to the prompt's last page."""
    engine = make_engine()
    start(engine, make_request("r", CASE, SAMPLING))
    tokens: dict[str, list[int]] = {}
    collect(tokens, engine.step().tokens)
    collect(tokens, engine.step().tokens)
    tables = engine._pool._held[key("r")].tables
    for table in tables.values():
        table[:] = tables[0]
    for _ in range(10):
        collect(tokens, engine.step().tokens)
    assert [tokens[name] for name in NAMES] != [alone(c)[:12] for c in range(3)]


# ---- log-probabilities


@torch.no_grad()
def wanted_logprobs() -> torch.Tensor:
    """[T - 1, vocab] of the long prompt, from the whole model at once."""
    ids = torch.tensor([LONG.token_ids])
    logits = reference_model()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    found: torch.Tensor = logits[:-1].log_softmax(-1)
    return found


@pytest.mark.parametrize("step_tokens", [16, 33, 512])
@pytest.mark.parametrize("role", [Role.FULL, Role.PREFILL])
def test_prompt_logprobs_come_chunk_by_chunk(
    step_tokens: int, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epd.engine.runner.MAX_LOGITS", 320 * 7)
    engine = make_engine(max_step_tokens=step_tokens)
    request = make_request("r", LONG, greedy(3, prompt_logprobs=2))
    start(engine, replace(request, role=role))
    start(engine, make_request("other", CASE, greedy(9)))
    found: list[TokenLogprobs] = []
    while engine.has_work:
        for name, first, logprobs in engine.step().prompt_logprobs:
            assert name == key("r") and first == 1 + len(found)
            found += logprobs
    wanted = wanted_logprobs()
    ids = torch.tensor(LONG.token_ids[1:])
    own = wanted.gather(1, ids[:, None])[:, 0]
    assert [each.logprob for each in found] == pytest.approx(own.tolist(), abs=1e-4)
    top = wanted.topk(2)
    assert [[token for token, _ in each.top] for each in found] == top.indices.tolist()
    engine.release(key("r"))
    engine.check()


def test_asking_for_prompt_logprobs_may_publish_but_uses_no_cached_kv(engine: Engine) -> None:
    """The worker asks for none; every position is computed."""
    request = make_request("a", LONG, greedy(3, prompt_logprobs=0))
    for name in "ab":
        asked = replace(request, key=key(name))
        assert engine.reserve(key(name), 150, prefix(asked, LONG), most_cached=0) == 0
        engine.start(asked)
        found = 0
        while engine.has_work:
            found += sum(len(logprobs) for _, _, logprobs in engine.step().prompt_logprobs)
        assert found == len(LONG.token_ids) - 1
    assert engine.cached_blocks > 0


def test_token_logprobs_travel_with_their_run(engine: Engine) -> None:
    start(engine, make_request("r", CASE, replace(SAMPLING, logprobs=3)))
    start(engine, make_request("other", LONG, greedy(4)))
    while engine.has_work:
        for run in engine.step().tokens:
            asked = run.request == key("r")
            assert [len(each.top) for each in run.logprobs] == [3] * asked


def test_seconds_of_every_phase_add_up(engine: Engine) -> None:
    start(engine, make_request("r", CASE, SAMPLING))
    finish(engine)
    assert engine.seconds.keys() == {"schedule", "plan", "forward", "sample", "other"}
    assert all(seconds > 0 for seconds in engine.seconds.values())


def test_what_steps_computed_is_counted(engine: Engine) -> None:
    """Two requests that decode together share their steps."""
    for name in ("r", "s"):
        start(engine, make_request(name, CASE, greedy(4)))
    finish(engine)
    prompts, decoded = 2 * CASE.prompt.num_tokens, 2 * 3
    assert engine.counts["tokens"] == prompts + decoded
    assert engine.counts["steps"] < engine.counts["sequences"] < engine.counts["tokens"]
    assert run_alone(make_request("x", CASE, greedy(2))) == generate(CASE, 2)
