"""Cores of language workers with real engines: cached prefixes, choices, stops, logprobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from epd.types import Activity, SamplingParams
from epd.types import Stage as Stages
from epd.wire import messages as m
from tests.engine.tiny import Case, generate, greedy, make_case
from tests.workers.stage import EVERYWHERE, Model, Stage

WAYS = [(False, "off"), (True, "off"), (False, "on"), (True, "on")]


@pytest.fixture(params=WAYS, ids=["split", "fused", "split late", "fused late"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    fused, ahead = request.param
    made = Stage(fused=fused, ahead=ahead)
    yield made
    made.check_nothing_held()
    made.close()


@pytest.fixture
def split() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.check_nothing_held()
    made.close()


def sampled(n: int = 1, max_tokens: int = 6) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, n=n, temperature=1.0, seed=11)


PICTURES = make_case(1, texts=(20, 30, 9), grids=((3, 4), (4, 4)))


def answers(stage: Stage, case: Case, *, reuse_at: Sequence[str] = EVERYWHERE) -> list[int]:
    """A greedy answer."""
    key = stage.ask(case, greedy(6), reuse_at=reuse_at)
    stage.run()
    return stage.tokens(key)


def test_a_prompt_that_is_cached_gives_the_same_tokens(stage: Stage) -> None:
    """As transformers gives them, whatever of it is computed and sent again."""
    expected = generate(PICTURES, 6)
    assert answers(stage, PICTURES) == expected
    assert answers(stage, PICTURES) == expected
    first, second = stage.answers(m.Admitted)
    assert (first.cached_tokens, second.cached_tokens) == (0, 80)


def test_only_kv_that_decode_has_not_got_is_sent(split: Stage) -> None:
    """Of 91 tokens 80 are there, in whole blocks."""
    answers(split, PICTURES)
    once = split.kv_bytes_sent
    answers(split, PICTURES)
    assert [r.cached_tokens for r in split.answers(m.Reserved)] == [0, 80]
    assert split.kv_bytes_sent - once == once * 11 // 91


def test_rows_of_cached_tokens_are_not_pulled(stage: Stage) -> None:
    """Of the first item all are cached; of the second all but the last, whose token is 80."""
    answers(stage, PICTURES)
    assert [(p.item.index, p.first_row, p.num_rows) for p in stage.pulled] == [
        (0, 0, 12),
        (1, 0, 16),
    ]
    answers(stage, PICTURES)
    assert [(p.item.index, p.first_row, p.num_rows) for p in stage.pulled[2:]] == [(1, 15, 1)]
    assert [r.item.index for r in stage.released] == [0, 1, 1]


@pytest.mark.parametrize(
    ("at", "cached"), [("decode", (80, 0)), ("prefill", (0, 80))], ids=["decode", "prefill"]
)
def test_kv_that_is_cached_at_one_end_only_is_right(
    split: Stage, at: str, cached: tuple[int, int]
) -> None:
    """What the one has is not sent, what the other has is not computed."""
    answers(split, PICTURES)
    assert answers(split, PICTURES, reuse_at=[at]) == generate(PICTURES, 6)
    reserved, admitted = split.answers(m.Reserved)[-1], split.answers(m.Admitted)[-1]
    assert (reserved.cached_tokens, admitted.cached_tokens) == cached


def test_without_a_prefix_nothing_is_reused_or_kept(stage: Stage) -> None:
    """The operator switched it off."""
    for _ in range(2):
        assert answers(stage, PICTURES, reuse_at=()) == generate(PICTURES, 6)
    assert [a.cached_tokens for a in stage.answers(m.Admitted)] == [0, 0]
    assert stage.prefill.gauges()["kv_blocks_cached"] == 0


def test_choices_go_on_where_their_first_tokens_were_sampled(stage: Stage) -> None:
    """Each as if it were alone."""
    case = make_case(2, texts=(40,))
    together = stage.ask(case, sampled(n=3))
    stage.run()
    for choice in range(3):
        alone = SamplingParams(max_tokens=6, first_choice=choice, temperature=1.0, seed=11)
        key = stage.ask(case, alone)
        stage.run()
        assert stage.tokens(together, choice) == stage.tokens(key, choice)
        assert len(stage.tokens(key, choice)) == 6


def test_choices_that_end_with_their_first_token_are_not_handed_off(split: Stage) -> None:
    """The request ends at prefill with the last of them; its gateway cancels at decode."""
    key = split.ask(make_case(2, texts=(40,)), sampled(n=3, max_tokens=1))
    split.run()
    assert split.prefill.gauges()["requests"] == 0
    split.say("decode", m.Cancel(request=key))


def test_a_stop_before_the_choice_runs_at_decode_holds(split: Stage) -> None:
    """Its first token is all that ever comes of it."""
    case = make_case(2, texts=(40,))
    key = split.ask(case, sampled(n=3))
    for name in ("prefill", "decode"):
        split.say(name, m.StopChoice(request=key, choice=1))
    split.run()
    assert [len(split.tokens(key, choice)) for choice in range(3)] == [6, 1, 6]


def test_a_stop_ends_a_choice_that_runs_and_the_request_with_its_last(stage: Stage) -> None:
    """Nothing is held for it, although nobody cancels."""
    case = make_case(2, texts=(40,))
    key = stage.ask(case, sampled(n=2, max_tokens=50))
    stage.run(lambda: len(stage.tokens(key, 1)) > 3)
    for choice in range(2):
        for name in stage.cores:
            stage.say(name, m.StopChoice(request=key, choice=choice))
    stage.run()
    assert all(len(stage.tokens(key, choice)) < 50 for choice in range(2))


def test_prompt_logprobs_come_before_the_first_token_and_need_every_logit(stage: Stage) -> None:
    """So nothing of the prompt is taken from the cache at prefill."""
    case = make_case(3, texts=(60,))
    answers(stage, case)
    asked = SamplingParams(max_tokens=2, prompt_logprobs=2)
    key = stage.ask(case, asked)
    stage.run()
    assert stage.answers(m.Admitted)[-1].cached_tokens == 0
    mine = [message for message in stage.told if isinstance(message, m.PromptLogprobs | m.Tokens)]
    scores = [message for message in mine if isinstance(message, m.PromptLogprobs)]
    places = [s.first_token + i for s in scores for i in range(len(s.logprobs))]
    assert places == list(range(1, 60))
    first = next(
        i for i, t in enumerate(mine) if isinstance(t, m.Tokens) and t.runs[0].request == key
    )
    assert all(isinstance(message, m.Tokens) for message in mine[first:])


def test_where_the_time_goes_is_told_in_milliseconds(stage: Stage) -> None:
    answers(stage, make_case(3, texts=(60,)))
    gauges = stage.prefill.gauges()
    phases = {name for name in gauges if name.startswith("engine_") and name.endswith("_ms")}
    assert {"engine_forward_ms", "engine_schedule_ms"} <= phases
    assert gauges["engine_forward_ms"] > 0


# ---- deadlines


@pytest.mark.parametrize("late", EVERYWHERE)
def test_a_request_whose_deadline_passed_ends_on_both_sides(split: Stage, late: str) -> None:
    """Whoever sees it first: no step runs for it any more, and the gateway is told why."""
    key = split.ask(PICTURES, greedy(60), deadline_ms=600_000)
    split.run(until=lambda: len(split.tokens(key)) >= 2 or late == "prefill")
    split.cores[late]._deadlines.set(key, 1, now=0.0)
    split.run()
    (failed,) = split.answers(m.RequestFailed)
    assert (failed.request, failed.status, failed.code) == (key, 503, "deadline")
    assert len(split.tokens(key)) < 60


def test_a_request_that_ends_in_time_is_not_late(stage: Stage) -> None:
    """Nothing is kept of its deadline."""
    key = stage.ask(PICTURES, greedy(3), deadline_ms=600_000)
    assert sum(len(core._deadlines) for core in stage.cores.values()) == len(stage.cores)
    stage.run()
    assert len(stage.tokens(key)) == 3
    assert not any(len(core._deadlines) for core in stage.cores.values())


def test_what_a_part_took_is_told_before_the_tokens_that_end_it(stage: Stage) -> None:
    """So that the gateway knows it when it answers. Rows and KV are counted where they came."""
    stage.ask(PICTURES, greedy(6))
    stage.run()
    kinds = [type(one) for one in stage.told if isinstance(one, m.RequestSpans | m.Tokens)]
    first = [m.RequestSpans, m.Tokens]
    assert kinds[:2] == kinds[-2:] == first
    prefill, *started, ended = stage.answers(m.RequestSpans)
    assert [(rows.index, rows.num_rows) for rows in prefill.rows] == [(0, 12), (1, 16)]
    assert activities(prefill) == {
        Activity.QUEUE,
        Activity.PREFILL,
        Activity.WAIT,
        Activity.MERGE,
    }
    assert (prefill.stage, ended.stage) == (Stages.PREFILL, Stages.DECODE)
    assert activities(ended) == {Activity.DECODE}
    if "decode" in stage.cores:
        assert [one.num_bytes for one in started] == [stage.kv_bytes_sent]
        assert activities(started[0]) == {Activity.TRANSFER, Activity.HANDOFF}
    else:
        assert started == []


def activities(told: m.RequestSpans) -> set[Activity]:
    return {span.activity for span in told.spans}


def test_a_step_that_only_decodes_tells_nothing(stage: Stage) -> None:
    """However many tokens: one word of prefill's, two of decode's, one of them if it is fused."""
    stage.ask(PICTURES, greedy(24))
    stage.run()
    assert len(stage.answers(m.RequestSpans)) == 1 + len(stage.cores)


class Broken(Model):
    """No logits of it are numbers."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().logits(hidden) * torch.nan

    def likeliest(self, hidden: torch.Tensor) -> torch.Tensor | None:
        return None


def test_kv_that_was_offered_and_gives_no_token_is_given_back_on_both_sides() -> None:
    """Read late, decode may have all of it by then."""
    stage = Stage(models={"prefill": Broken(), "decode": Model()}, ahead="on")
    key = stage.ask(PICTURES, greedy(6))
    stage.run()
    assert stage.offered[-1].num_tokens == PICTURES.prompt.num_tokens
    assert [failed.request for failed in stage.answers(m.RequestFailed)] == [key]
    assert stage.tokens(key) == [] and stage.prefill.gauges()["kv_blocks_cached"] == 0
    stage.check_nothing_held()
    stage.close()
