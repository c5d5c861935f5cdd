"""The engine against transformers' generate(), token for token in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest, MultiModalEmbeddingData, Role, StepResult
from epd.errors import EpdError, Overloaded
from epd.types import FinishReason, SamplingParams
from tests.engine.tiny import (
    VOCAB,
    TinyLanguage,
    collect,
    extend,
    finish,
    generate,
    greedy,
    hand_over,
    key,
    landed,
    make_case,
    make_engine,
    make_request,
    run_alone,
    start,
)

CASES = [
    make_case(1, texts=(9,)),
    make_case(2, texts=(5, 7), grids=((4, 3),)),
    make_case(3, texts=(40, 1, 30), grids=((2, 2), (6, 7))),
    make_case(4, texts=(130,)),
    make_case(5, texts=(2, 300), grids=((9, 5),)),
]
IMAGE = CASES[1]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine whose books must balance at the end, and be empty once all is released."""
    made = make_engine(max_step_tokens=32)
    yield made
    made.check()


# ---- equality


@pytest.mark.parametrize("step_tokens", [16, 24, 64, 512])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_packed_requests_equal_generate(step_tokens: int, penalty: float) -> None:
    """Five prompts at once: chunks of some share a forward with decodes of others."""
    engine = make_engine(max_step_tokens=step_tokens)
    for number, case in enumerate(CASES):
        start(engine, make_request(f"r{number}", case, greedy(20, repetition_penalty=penalty)))
    tokens = finish(engine)
    for number, case in enumerate(CASES):
        assert tokens[f"r{number}"] == generate(case, 20, repetition_penalty=penalty), number
    assert engine.used_blocks == 0 and not engine.has_work


def test_requests_joining_at_any_time_equal_generate() -> None:
    """A new request every few steps: prefill chunks and decodes in the same forward."""
    model = TinyLanguage()
    engine = Engine(model, LanguageConfig(kv_tokens=4096, max_step_tokens=16, block_size=32))
    tokens: dict[str, list[int]] = {}
    waiting = list(enumerate(CASES))
    mixed = steps = 0
    while waiting or engine.has_work:
        if steps % 3 == 0 and waiting:
            number, case = waiting.pop()
            start(engine, make_request(f"r{number}", case, greedy(24)))
        result = engine.step()
        mixed += bool(result.computed) and len(result.tokens) > 1
        collect(tokens, result.tokens)
        steps += 1
    assert [tokens[f"r{n}"] for n in range(len(CASES))] == [generate(c, 24) for c in CASES]
    assert max(model.forwards) == 16 and mixed > 3


@pytest.mark.parametrize("cut", [False, True])
def test_positions_may_be_fractions(cut: bool) -> None:
    """The same fraction everywhere is no difference: rotary embeddings see distances. Where it is
    cut off generated tokens' positions, it is one."""
    request = make_request("r", CASES[2], greedy(16))
    request.positions = request.positions + 0.9
    request.position_delta += 0.0 if cut else 0.9
    assert (run_alone(request) == generate(CASES[2], 16)) is not cut


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_prefill_hands_over_to_decode_and_equals_generate(penalty: float) -> None:
    """KV leaves one engine and enters another in pieces, while other requests run on both."""
    prefill, decode = make_engine(max_step_tokens=24), make_engine(max_step_tokens=8, block_size=48)
    requests = [
        replace(
            make_request(f"r{number}", case, greedy(16, repetition_penalty=penalty)),
            role=Role.PREFILL,
        )
        for number, case in enumerate(CASES)
    ]
    for request in requests:
        start(prefill, request)
    first = finish(prefill)
    assert all(len(tokens) == 1 for tokens in first.values()) and prefill.used_blocks > 0
    for request in requests:
        hand_over(prefill, decode, request, [(0, first[request.key.request_id][0])])
        prefill.release(request.key)
    rest = finish(decode)
    for number, case in enumerate(CASES):
        name = f"r{number}"
        assert first[name] + rest[name] == generate(case, 16, repetition_penalty=penalty), number
    assert prefill.used_blocks == decode.used_blocks == 0


def test_rows_landing_late_change_nothing(engine: Engine) -> None:
    """Prefill runs up to the first missing row; rows of computed tokens are freed."""
    case = CASES[2]
    data = MultiModalEmbeddingData(case.prompt)
    start(engine, replace(make_request("r", case, greedy(12)), embeddings=data))
    computed = []
    while engine.has_work:
        computed += engine.step().computed
    assert computed == [(key("r"), 32), (key("r"), 41)]
    data.add(1, 5, case.rows[1][5:])
    data.add(0, 0, case.rows[0])
    assert engine.has_work
    while engine.has_work:
        computed += engine.step().computed
    assert computed[-1] == (key("r"), 48)
    data.add(1, 0, case.rows[1][:5])
    assert finish(engine)["r"] == generate(case, 12)
    assert data.held_bytes == 0


@pytest.mark.parametrize("role", [Role.FULL, Role.DECODE])
def test_resumed_request_continues_exactly(role: Role) -> None:
    """Attempt 2: the prompt plus what was emitted, randomness by token index, same max_tokens."""
    sampling = SamplingParams(temperature=1.0, repetition_penalty=1.2, seed=5, max_tokens=18)
    whole = run_alone(make_request("r", IMAGE, sampling))
    again = make_request("r", extend(IMAGE, whole[:7]), sampling)
    again = replace(again, first_index=7)
    if role is Role.FULL:
        assert run_alone(again) == whole[7:]
        return
    prefill, decode = make_engine(), make_engine()
    start(prefill, replace(again, role=Role.PREFILL))
    first = finish(prefill)["r"]
    hand_over(prefill, decode, again, [(0, first[0])])
    assert first + finish(decode)["r"] == whole[7:]


# ---- negative controls: what the equalities above would miss if they were vacuous


@pytest.mark.parametrize("broken", ["rows", "order", "positions", "delta"])
def test_one_wrong_thing_changes_the_tokens(broken: str) -> None:
    request = make_request("r", CASES[2], greedy(16))
    length = len(request.token_ids)
    if broken == "positions":
        request.positions = torch.arange(length)
    elif broken == "delta":
        request.position_delta = 0
    else:
        rows = [r.flip(0) if broken == "order" else torch.zeros_like(r) for r in CASES[2].rows]
        request.embeddings = landed(replace(CASES[2], rows=tuple(rows)))
    assert run_alone(request) != generate(CASES[2], 16)


def test_stale_kv_changes_the_tokens() -> None:
    """KV of another prompt under the same reservation is not taken for this one's."""
    prefill, decode = make_engine(), make_engine()
    request = replace(make_request("r", CASES[0], greedy(16)), role=Role.PREFILL)
    other = replace(make_request("s", make_case(8, texts=(9,)), greedy(16)), role=Role.PREFILL)
    for each in (request, other):
        start(prefill, each)
    first = finish(prefill)
    hand_over(prefill, decode, replace(request, key=key("s")), [(0, first["r"][0])])
    assert first["r"] + finish(decode)["s"] != generate(CASES[0], 16)


# ---- sampling


def test_seeded_tokens_do_not_depend_on_company() -> None:
    """Alone, among others, or in tiny chunks: f(seed, index) and the logits decide."""

    def ask(number: int) -> EngineRequest:
        sampling = SamplingParams(temperature=1.0, top_p=0.95, top_k=40, seed=number, max_tokens=15)
        return make_request(f"r{number}", CASES[number % len(CASES)], sampling)

    engine = make_engine(max_step_tokens=64)
    for number in range(8):
        start(engine, ask(number))
    together = finish(engine)
    for number in range(8):
        assert run_alone(ask(number), max_step_tokens=17) == together[f"r{number}"]
    assert together["r0"] != together["r5"], "two seeds, one prompt"


def test_requests_end_at_a_stop_token_which_is_reported(engine: Engine) -> None:
    whole = generate(IMAGE, 20)
    stop = whole[6]
    end = whole.index(stop)
    start(engine, make_request("r", IMAGE, greedy(20, stop_token_ids=(VOCAB - 1, stop))))
    runs = []
    while engine.has_work:
        runs += engine.step().tokens
    assert [run.token_ids for run in runs] == [(token,) for token in whole[: end + 1]]
    assert [run.first_index for run in runs] == list(range(end + 1))
    assert [run.finish_reason for run in runs] == [None] * end + [FinishReason.STOP]
    assert engine.used_blocks == 0


def test_prefill_reports_the_end_and_keeps_the_kv(engine: Engine) -> None:
    start(engine, replace(make_request("r", IMAGE, greedy(1)), role=Role.PREFILL))
    (run,) = engine.step().tokens
    assert run.finish_reason is FinishReason.LENGTH
    assert engine.used_blocks > 0 and not engine.has_work
    assert engine.exchange.read(key("r"), 0, len(IMAGE.token_ids), 0, 3).shape == (2, 3, 26, 2, 16)
    engine.release(key("r"))
    assert engine.used_blocks == 0


# ---- leaving, failing


@pytest.mark.parametrize("steps", [0, 1, 2, 8])
def test_abort_at_any_time_frees_all_and_disturbs_nobody(engine: Engine, steps: int) -> None:
    """Waiting, in the middle of the prompt, decoding: released between two steps."""
    data = landed(CASES[2])
    assert data is not None
    leaver = make_request("leaver", CASES[2], greedy(30, repetition_penalty=1.1))
    start(engine, replace(leaver, embeddings=data))
    start(engine, make_request("stays", IMAGE, greedy(16)))
    tokens: dict[str, list[int]] = {}
    for _ in range(steps):
        collect(tokens, engine.step().tokens)
    before = engine.used_blocks
    engine.release(key("leaver"))
    engine.release(key("leaver"))
    engine.check()
    assert engine.used_blocks < before and data.held_bytes == 0
    while engine.has_work:
        collect(tokens, engine.step().tokens)
    assert tokens["stays"] == generate(IMAGE, 16)
    assert engine.used_blocks == 0


def test_release_frees_a_reservation_that_never_started(engine: Engine) -> None:
    assert engine.reserve(key("r"), 100) == 0 and engine.free_tokens == 4096 - 112
    engine.exchange.write(key("r"), 0, 0, torch.zeros(2, 3, 5, 2, 16))
    engine.release(key("r"))
    assert engine.free_tokens == engine.num_tokens_capacity == 4096
    assert engine.fits(4096) and not engine.fits(4097)


def test_broken_rows_fail_their_request_alone(engine: Engine) -> None:
    """NaN in one request's rows: its pages hold NaN, the others never see them."""
    rows = (torch.full_like(IMAGE.rows[0], torch.nan),)
    start(engine, make_request("bad", replace(IMAGE, rows=rows), greedy(8)))
    start(engine, make_request("good", IMAGE, greedy(8)))
    tokens, failed = run_all(engine)
    assert [(k, str(e)) for k, e in failed] == [(key("bad"), "the model's logits are not finite")]
    assert tokens == {"good": generate(IMAGE, 8)}
    start(engine, make_request("next", IMAGE, greedy(8)))
    assert finish(engine) == {"next": generate(IMAGE, 8)}, "blocks that held NaN are used again"


def test_missing_rows_fail_their_request_alone(engine: Engine) -> None:
    data = landed(IMAGE)
    assert data is not None
    start(engine, replace(make_request("bad", IMAGE, greedy(8)), embeddings=data))
    start(engine, make_request("good", IMAGE, greedy(8)))
    data.drop_before(12)
    data.drop_before(26)
    tokens, failed = run_all(engine)
    assert [(k, str(e)) for k, e in failed] == [
        (key("bad"), "item 0 (from encode-0): row 0 is not there")
    ]
    assert tokens == {"good": generate(IMAGE, 8)}


def test_a_request_without_room_to_go_on_is_failed_not_hung() -> None:
    """Nothing can move to host memory either: the younger one is to be placed again."""
    engine = make_engine(kv_tokens=32, host_bytes=0)
    for name in ("a", "b"):
        assert engine.reserve(key(name), 16) == 0
        engine.start(make_request(name, CASES[0], greedy(16)))
    tokens, failed = run_all(engine)
    assert [k for k, _ in failed] == [key("b")] and isinstance(failed[0][1], Overloaded)
    assert tokens["a"] == generate(CASES[0], 16)
    assert engine.used_blocks == 0


def run_all(engine: Engine) -> tuple[dict[str, list[int]], list[tuple[Any, EpdError]]]:
    tokens: dict[str, list[int]] = {}
    failed = []
    while engine.has_work:
        result = engine.step()
        collect(tokens, result.tokens)
        failed += result.failed
        engine.check()
    for broken, _ in failed:
        tokens.pop(broken.request_id, None)
    return tokens, failed


def test_idle_step_does_nothing(engine: Engine) -> None:
    assert engine.step() == StepResult()
