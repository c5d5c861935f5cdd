"""Decode steps that are recorded and replayed, and steps that are read one step late, prompts'
chunks in them or not: nobody sees any difference but in time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epd.config.sections import LanguageConfig
from epd.engine import Engine, MultiModalEmbeddingData, Role
from epd.engine.decode_graphs.buckets import Buckets, sizes
from epd.grammar import json_text
from epd.types import FinishReason, SamplingParams, TokenLogprobs
from tests.engine.recorded import FixedSdpa, Replays
from tests.engine.tiny import (
    Case,
    TinyLanguage,
    collect,
    finish,
    generate,
    greedy,
    hand_over,
    key,
    make_case,
    make_request,
    prefix,
    start,
)
from tests.grammar.vocabulary import eos, grammars

CASES = [
    make_case(1, texts=(9,)),
    make_case(2, texts=(5, 7), grids=((4, 3),)),
    make_case(3, texts=(40, 1, 30), grids=((2, 2), (6, 7))),
]
LIST = json_text({"type": "array", "items": {"type": "boolean"}, "minItems": 4, "maxItems": 9})
PENALTIES = (1.0, 1.3, 1.0)
WAYS = [("on", False), ("off", True), ("on", True)]


def make(ahead: str = "on", *, recorded: bool = True, capture: Any = None, **more: Any) -> Engine:
    config = LanguageConfig(**{"kv_tokens": 2048, "max_running": 8, "ahead": ahead, **more})
    capture = capture or (Replays() if recorded else None)
    return Engine(model(), config, backend=FixedSdpa(), capture=capture)


@cache
def model() -> TinyLanguage:
    """It holds nothing of any engine."""
    return TinyLanguage()


@cache
def wanted_of(case: int, max_tokens: int) -> list[int]:
    return generate(CASES[case], max_tokens)


@pytest.mark.parametrize(("ahead", "recorded"), WAYS)
def test_answers_equal_generate(ahead: str, *, recorded: bool) -> None:
    """Prompts in chunks beside decodes, a batch that grows and shrinks."""
    engine = make(ahead, recorded=recorded, max_step_tokens=24)
    for number, case in enumerate(CASES):
        sampling = greedy(12 + number, repetition_penalty=PENALTIES[number])
        start(engine, make_request(f"r{number}", case, sampling))
    tokens = finish(engine)
    for number, case in enumerate(CASES):
        wanted = generate(case, 12 + number, repetition_penalty=PENALTIES[number])
        assert tokens[f"r{number}"] == wanted, number
    assert engine.used_blocks == 0


def test_a_replay_that_reads_nothing_anew_would_be_seen() -> None:
    """The control of all others here."""
    engine = make("off", capture=Replays(forgetful=True))
    start(engine, make_request("r", CASES[0], greedy(12)))
    assert finish(engine)["r"] != generate(CASES[0], 12)


def drawn(seed: int, **more: Any) -> SamplingParams:
    return replace(SamplingParams(max_tokens=10, temperature=0.9, seed=seed), **more)


SAMPLINGS = [
    drawn(1, n=3),
    drawn(2, top_k=20, presence_penalty=0.5, prompt_logprobs=1),
    drawn(3, top_p=0.8, logprobs=2, logit_bias=((5, 3.0),)),
    drawn(4, min_p=0.1, min_tokens=4, stop_token_ids=tuple(range(0, 320, 3))),
    greedy(10, stop_token_ids=tuple(range(0, 320, 7)), n=2),
]


@pytest.mark.parametrize(("ahead", "recorded"), WAYS)
def test_draws_penalties_stops_and_logprobs_are_the_same(ahead: str, *, recorded: bool) -> None:
    def answers(engine: Engine) -> dict[tuple[str, int], list[Any]]:
        found: dict[tuple[str, int], list[Any]] = defaultdict(list)
        for number, sampling in enumerate(SAMPLINGS):
            start(engine, make_request(f"r{number}", CASES[number % 3], sampling))
        while engine.has_work:
            result = engine.step()
            for run in result.tokens:
                told = (run.first_index, run.token_ids, run.finish_reason)
                found[run.request.request_id, run.choice].append((told, likely(run.logprobs)))
            for name, first, logprobs in result.prompt_logprobs:
                found[name.request_id, -1].append((first, likely(logprobs)))
            engine.check()
        assert engine.used_blocks == 0
        return found

    many = make(ahead, recorded=recorded, max_step_tokens=24)
    assert answers(many) == answers(make("off", recorded=False, max_step_tokens=24))


def likely(logprobs: Sequence[TokenLogprobs]) -> list[Any]:
    return [(round(p.logprob, 4), p.top[:1] and p.top[0][0]) for p in logprobs]


def test_the_next_step_is_launched_before_this_one_is_read() -> None:
    model = TinyLanguage()
    config = LanguageConfig(kv_tokens=512, ahead="on")
    engine = Engine(model, config)
    start(engine, make_request("r", CASES[0], greedy(4)))
    told = []
    while engine.has_work:
        told.append((len(engine.step().tokens), len(model.forwards)))
    assert told == [(0, 1), (1, 2), (1, 3), (1, 4), (1, 4)]


def test_a_prompt_is_computed_behind_a_step_that_is_not_read_yet() -> None:
    """Its chunks count as computed when they are launched, and its first token comes a step later,
    when the second one has been launched."""
    model = TinyLanguage()
    engine = Engine(model, LanguageConfig(kv_tokens=512, ahead="on", max_step_tokens=9))
    start(engine, make_request("a", CASES[0], greedy(9)))
    engine.step()
    start(engine, make_request("b", CASES[0], greedy(3)))
    told = []
    for _ in range(4):
        result = engine.step()
        names = [run.request.request_id for run in result.tokens]
        told.append((model.forwards[-1], [num for _, num in result.computed], "".join(names)))
    assert told == [(9, [8], "a"), (2, [9], "a"), (2, [], "ab"), (2, [], "ab")]


def test_first_tokens_that_do_not_come_from_the_step_before_would_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: what is ahead is not what the host has in its place."""
    monkeypatch.setattr("epd.engine.runner._with_ahead", lambda before, ids, sources: ids)
    engine = make(recorded=False)
    start(engine, make_request("r", CASES[0], greedy(2)))
    assert finish(engine)["r"] != generate(CASES[0], 2)


def test_kv_is_handed_over_before_its_step_is_read() -> None:
    """It is there for whatever is asked for behind the forward."""
    whole = make("off")
    start(whole, make_request("r", CASES[2], greedy(3)))
    while not whole.step().tokens:
        pass
    prefill, decode = make(max_step_tokens=48), make()
    request = replace(make_request("r", CASES[2], greedy(12)), role=Role.PREFILL)
    start(prefill, request)
    num = len(request.token_ids)
    while (key("r"), num) not in (result := prefill.step()).computed:
        pass
    assert not result.tokens and prefill.has_work
    early = prefill.exchange.read(key("r"), 0, num, 0, 3)
    torch.testing.assert_close(early, whole.exchange.read(key("r"), 0, num, 0, 3))
    (run,) = prefill.step().tokens
    hand_over(prefill, decode, request, [(0, run.token_ids[0])])
    assert [*run.token_ids, *finish(decode)["r"]] == generate(CASES[2], 12)
    prefill.release(key("r"))
    assert prefill.used_blocks == 0


def test_choices_that_ended_before_their_first_tokens_are_read_say_nothing() -> None:
    for role in (Role.FULL, Role.PREFILL):
        engine = make()
        request = make_request("r", CASES[0], greedy(4, n=2))
        start(engine, replace(request, role=role), room=8)
        assert not engine.step().tokens
        engine.end_choice(key("r"), 1)
        engine.check()
        assert finish(engine) == {"r": generate(CASES[0], 4 if role is Role.FULL else 1)}
        start(engine, replace(request, key=key("s"), role=role), room=8)
        engine.step()
        for choice in range(2):
            engine.end_choice(key("s"), choice)
        results = []
        while engine.has_work:
            results.append(engine.step())
        assert [name for result in results for name in result.ended] == [key("s")]
        assert not any(result.tokens for result in results)
        for name in "rs":
            engine.release(key(name))
        assert engine.used_blocks == 0


def test_a_grammar_begins_when_nothing_is_ahead() -> None:
    """Its mask would keep the host from what others have said. It comes at any time, and once when
    another one's last token is ahead; all say what they say alone."""
    wanted = generate(CASES[0], 12)
    other = greedy(12, stop_token_ids=(wanted[5],))
    guided = SamplingParams(
        temperature=1.0, seed=3, max_tokens=40, grammar=LIST, stop_token_ids=(eos(),)
    )

    def answers(ahead: str, steps: int) -> dict[str, list[int]]:
        config = LanguageConfig(kv_tokens=4096, ahead=ahead, max_step_tokens=16)
        engine, found = Engine(TinyLanguage(), config, grammars()), dict[str, list[int]]()
        start(engine, make_request("a", CASES[0], other))
        for _ in range(steps):
            collect(found, engine.step().tokens)
        start(engine, make_request("b", CASES[0], guided))
        for name, tokens in finish(engine).items():
            found.setdefault(name, []).extend(tokens)
        return found

    expected = answers("off", 0)
    assert expected["a"] == wanted[: wanted.index(wanted[5]) + 1]
    assert [answers("on", steps) for steps in range(8)] == [expected] * 8


def test_the_tokens_that_a_request_may_have_are_never_exceeded() -> None:
    """Where the end is known beforehand no step is wasted, and no block is taken for it."""
    model = TinyLanguage()
    engine = Engine(model, LanguageConfig(kv_tokens=32, ahead="on"))
    start(engine, make_request("r", CASES[0], greedy(7)))  # 9 + 7 tokens: one block
    assert engine.used_blocks == 1
    assert len(finish(engine)["r"]) == 7 and len(model.forwards) == 7


def test_what_was_launched_for_a_choice_that_stopped_is_dropped() -> None:
    wanted = generate(CASES[0], 12)
    stop = wanted[5]
    engine = make()
    start(engine, make_request("r", CASES[0], greedy(12, stop_token_ids=(stop,))))
    runs = []
    while engine.has_work:
        runs += engine.step().tokens
        engine.check()
    assert [run.token_ids[0] for run in runs] == wanted[: wanted.index(stop) + 1]
    assert runs[-1].finish_reason is FinishReason.STOP and engine.used_blocks == 0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "step", "step", "step", "release", "end", "rows"]),
        st.integers(0, 8),
    ),
    max_size=40,
)


@settings(max_examples=6)
@given(EVENTS, st.sampled_from([96, 2048]), st.integers(1, 4))
def test_whoever_comes_and_goes_meanwhile_gets_its_own_tokens(
    events: Sequence[tuple[str, int]], kv_tokens: int, running: int
) -> None:
    """Also where requests move to the host and back, where some have to wait for their turn or for
    rows, and where prompts are found that others have just had computed."""
    engine = make(kv_tokens=kv_tokens, max_running=running, max_step_tokens=32)
    rows: dict[str, MultiModalEmbeddingData] = {}
    found: dict[str, list[int]] = {}
    started: dict[str, int] = {}
    dropped: set[str] = set()

    def step() -> None:
        result = engine.step()
        collect(found, result.tokens)
        dropped.update(k.request_id for k, _ in result.failed)
        engine.check()

    for count, (event, number) in enumerate(events):
        name = f"r{number}"
        if event == "start" and name not in started:
            case, sampling = CASES[number % 3], greedy(1 + 3 * number, n=1 + number % 2)
            late = MultiModalEmbeddingData(case.prompt)
            request = replace(make_request(name, case, sampling), embeddings=late)
            num, known = len(request.token_ids), prefix(request, case)
            if engine.reserve(request.key, num + 1, known, most_cached=num - 1) is not None:
                started[name], rows[name] = count, late
                engine.start(request)
        elif event == "rows" and name in rows:
            land(rows[name], CASES[number % 3])
        elif event == "release":
            engine.release(key(name))
            dropped.add(name)
        elif event == "end":
            engine.end_choice(key(name), 1)
            dropped.add(f"{name}.1")
        elif event == "step" and engine.has_work:
            step()
    for name, missing in rows.items():
        land(missing, CASES[int(name[1:]) % 3])
    while engine.has_work:
        step()
    for name in started:
        number = int(name[1:])
        wanted = wanted_of(number % 3, 1 + 3 * number)
        for choice in range(1 + number % 2):
            label = f"{name}.{choice}" if choice else name
            tokens = found.get(label, [])
            gone = {name, label} & dropped
            assert tokens == wanted[: len(tokens)] and (gone or len(tokens) == len(wanted)), label
    assert engine.used_blocks == 0


def land(rows: MultiModalEmbeddingData, case: Case) -> None:
    for index, found in enumerate(case.rows):
        rows.add(index, 0, found)


class Broken(TinyLanguage):
    """Logits of one forward are no numbers."""

    def __init__(self, number: int = 4) -> None:
        super().__init__()
        self._number = number

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().logits(hidden) * (torch.nan if len(self.forwards) == self._number else 1.0)

    def likeliest(self, hidden: torch.Tensor) -> torch.Tensor | None:
        return None


@pytest.mark.parametrize("number", [1, 4])
def test_a_step_that_gives_no_token_ends_its_request_and_not_the_engine(number: int) -> None:
    """The one launched behind it had nothing to go on with; no page of it is found again."""
    engine = Engine(Broken(number), LanguageConfig(kv_tokens=512, ahead="on"))
    start(engine, make_request("r", CASES[1], greedy(9)), case=CASES[1])
    tokens, failed = [], []
    while engine.has_work:
        result = engine.step()
        tokens += [token for run in result.tokens for token in run.token_ids]
        failed += [found for found, _ in result.failed]
        engine.check()
    assert tokens == generate(CASES[1], 9)[: number - 1] and failed == [key("r")]
    assert start(engine, make_request("s", CASES[1], greedy(5)), case=CASES[1]) == 0
    assert finish(engine)["s"] == generate(CASES[1], 5)


# ---- which batch is replayed


def test_every_batch_has_a_size_and_is_padded_by_little() -> None:
    for most in (1, 3, 8, 64, 200, 1000):
        found = sizes(most)
        assert found[-1] == most and list(found) == sorted(set(found)) and found[0] == 1
        buckets = Buckets(found, 4)
        for num in range(1, most + 1):
            size = buckets.size_for([4] * num)
            assert size is not None and size - num <= max(7, num // 4), (most, num)


def test_what_was_not_recorded_is_not_replayed() -> None:
    buckets = Buckets((1, 2, 4), most_blocks=3)
    assert buckets.size_for([3, 1, 2]) == 4
    assert buckets.size_for([1] * 5) is None
    assert buckets.size_for([1, 4]) is None
    assert buckets.size_for([]) is None


def test_steps_of_decodes_are_replayed_and_all_others_are_not() -> None:
    book = Replays()
    engine = make("off", capture=book, max_running=4, max_step_tokens=256)
    assert book.recorded == [4, 2, 1]
    for number, case in enumerate(CASES):
        start(engine, make_request(f"r{number}", case, greedy(3 + 4 * number)))
    finish(engine)
    assert set(book.replays) == {1, 2, 4}
    assert sorted(book.replays, reverse=True) == book.replays


def test_what_cannot_be_recorded_runs_without_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once for all batch sizes with the same reason."""
    book = Replays(most=1)
    engine = make("off", capture=book, max_running=4, max_step_tokens=256)
    (told,) = [r.message for r in caplog.records if "not recorded" in r.message]
    assert told == "decode steps of batch size 2, 4 are not recorded: out of memory"
    start(engine, make_request("r0", CASES[0], greedy(4)))
    start(engine, make_request("r1", CASES[1], greedy(8)))
    found = finish(engine)
    assert found == {"r0": generate(CASES[0], 4), "r1": generate(CASES[1], 8)}
    assert set(book.replays) == {1}


def test_a_sequence_that_is_longer_than_what_was_recorded_runs_without() -> None:
    book = Replays()
    engine = make("off", capture=book, max_context=16)
    start(engine, make_request("r", CASES[0], greedy(12)))
    assert finish(engine)["r"] == generate(CASES[0], 12)
    assert 0 < len(book.replays) < 11
