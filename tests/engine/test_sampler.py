"""The sampler against a plain reference and against transformers, alone and in any company."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from epd.engine import draw
from epd.engine.randomness import uniform
from epd.engine.sampler import BROKEN, Sampler
from epd.models.torchvision_shim import prepare_torchvision
from epd.types import SamplingParams, TokenLogprobs
from tests.engine import plain_sampling

VOCAB = 97
LARGE = 64 * 300  # so large that the largest scores are found in two stages

CONTROLS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 0.7},
    "hot": {"temperature": 2.5},
    "top_k": {"temperature": 1.0, "top_k": 7},
    "top_k 1": {"temperature": 1.0, "top_k": 1},
    "top_k beyond the vocabulary": {"temperature": 1.0, "top_k": VOCAB + 9},
    "top_p": {"temperature": 1.3, "top_p": 0.8},
    "top_p next to nothing": {"temperature": 1.3, "top_p": 1e-9},
    "min_p": {"temperature": 1.5, "min_p": 0.1},
    "min_p 1": {"temperature": 1.5, "min_p": 1.0},
    "all filters": {"temperature": 2.0, "top_k": 30, "top_p": 0.9, "min_p": 0.05},
    "top_p and min_p": {"temperature": 2.0, "top_p": 0.9, "min_p": 0.05},
    "repetition": {"repetition_penalty": 1.7},
    "rewarded repetition": {"repetition_penalty": 0.6, "temperature": 0.8},
    "presence": {"presence_penalty": 2.0, "temperature": 1.5},
    "frequency": {"frequency_penalty": 0.7, "temperature": 0.5},
    "rewarded frequency": {"frequency_penalty": -0.8},
    "both counts": {"presence_penalty": -1.0, "frequency_penalty": 0.9},
    "bias": {"logit_bias": ((3, 6.5), (0, -100.0), (96, 2.0))},
    "forced": {"logit_bias": ((11, 100.0),), "temperature": 1.0},
    "min_tokens": {"min_tokens": 4, "stop_token_ids": tuple(range(60))},
    "everything": {
        "temperature": 0.9,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.02,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.3,
        "logit_bias": ((5, 3.0), (6, -3.0)),
        "min_tokens": 2,
        "stop_token_ids": (1, 2, 5),
    },
}


@dataclass(frozen=True)
class Row:
    """One row of a batch: a choice of a request that has generated something already."""

    name: str
    params: SamplingParams
    prompt: tuple[int, ...]
    generated: tuple[int, ...] = ()
    choice: int = 0


def make_rows(vocab: int = VOCAB, times: int = 6) -> list[Row]:
    """Every control several times, with other tokens, seeds, choices and indices."""
    rows = []
    for number in range(times):
        for place, (name, fields) in enumerate(CONTROLS.items()):
            seed = 1000 * number + place
            tokens = torch.randint(0, vocab, (24,), generator=seeded(seed)).tolist()
            # Few different ones, so that some come up again and counts go beyond 1.
            generated = [tokens[at % 3] for at in range((number + place) % 7)]
            params = SamplingParams(**fields, seed=seed * 7919)
            row = Row(f"{name} {number}", params, tuple(tokens[:9]), tuple(generated), number % 3)
            rows.append(row)
    return rows


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_logits(num: int, vocab: int = VOCAB) -> torch.Tensor:
    return torch.randn(num, vocab, generator=seeded(num)) * 3


def make_sampler(rows: Sequence[Row], vocab: int = VOCAB) -> Sampler:
    sampler = Sampler(vocab_size=vocab, device=torch.device("cpu"))
    for row in rows:
        sampler.add(row.name, row.params, row.choice, row.prompt, row.generated)
    return sampler


def sample(logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
    sampler = make_sampler(rows, logits.shape[-1])
    found: list[int] = sampler.sample(logits, [row.name for row in rows]).ids.tolist()
    return found


def plain(logits: torch.Tensor, row: Row) -> int:
    return plain_sampling.choose(logits.tolist(), row.params, row.prompt, row.generated, row.choice)


# ---- what is chosen


def test_every_control_equals_the_plain_reference() -> None:
    """All of them in one batch."""
    rows = make_rows()
    logits = make_logits(len(rows))
    want = {row.name: plain(line, row) for line, row in zip(logits, rows, strict=True)}
    assert dict(zip(want, sample(logits, rows), strict=True)) == want
    assert len(set(want.values())) > 40


def test_a_large_vocabulary_makes_no_difference() -> None:
    """Two stages find the same largest scores."""
    rows = make_rows(LARGE, times=1)
    logits = make_logits(len(rows), LARGE)
    want = {row.name: plain(line, row) for line, row in zip(logits, rows, strict=True)}
    assert dict(zip(want, sample(logits, rows), strict=True)) == want


@pytest.mark.parametrize(
    "field",
    [
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "min_tokens",
    ],
)
def test_every_control_makes_a_difference(field: str) -> None:
    """Without it some row comes out otherwise, so the equality above is not empty."""
    rows = make_rows(times=20)
    logits = make_logits(len(rows))
    neutral = getattr(SamplingParams(), field)
    without = [replace(row, params=replace(row.params, **{field: neutral})) for row in rows]
    assert sample(logits, without) != sample(logits, rows)


def test_generated_tokens_count_step_by_step() -> None:
    """What was sampled here is treated as what was generated elsewhere."""
    rows = make_rows(times=2)
    sampler = make_sampler(rows)
    names = [row.name for row in rows]
    for step in range(6):
        logits = make_logits(len(rows)) + step
        want = [plain(line, row) for line, row in zip(logits, rows, strict=True)]
        assert sampler.sample(logits, names).ids.tolist() == want
        rows = [
            replace(row, generated=(*row.generated, token))
            for row, token in zip(rows, want, strict=True)
        ]


def processors(row: Row) -> Any:
    """transformers' processors in the order of generate()."""
    from transformers import (
        LogitsProcessorList,
        MinNewTokensLengthLogitsProcessor,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        SequenceBiasLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    params = row.params
    chain = LogitsProcessorList()
    if params.logit_bias:
        bias = {(token,): value for token, value in params.logit_bias}
        chain.append(SequenceBiasLogitsProcessor(bias))
    chain.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.min_tokens:
        stops = list(params.stop_token_ids)
        num = len(row.prompt)
        chain.append(MinNewTokensLengthLogitsProcessor(num, params.min_tokens, stops, "cpu"))
    if params.temperature > 0:
        chain.append(TemperatureLogitsWarper(params.temperature))
        chain.append(TopKLogitsWarper(params.top_k or VOCAB))
        chain.append(TopPLogitsWarper(params.top_p))
        chain.append(MinPLogitsWarper(params.min_p))
    return chain


def transformers_says(logits: torch.Tensor, row: Row) -> int:
    tokens = torch.tensor([[*row.prompt, *row.generated]])
    scores = processors(row)(tokens, logits.double()[None])[0]
    if row.params.temperature == 0.0:
        return int(scores.argmax())
    point = uniform(row.params.seed, row.choice, len(row.generated))
    return plain_sampling.walk(scores.softmax(-1).tolist(), point)


def test_what_transformers_has_too_equals_it() -> None:
    """Everything but presence and frequency penalties."""
    prepare_torchvision()
    rows = [
        replace(row, params=replace(row.params, presence_penalty=0.0, frequency_penalty=0.0))
        for row in make_rows(times=12)
    ]
    logits = make_logits(len(rows))
    want = {row.name: transformers_says(line, row) for line, row in zip(logits, rows, strict=True)}
    assert dict(zip(want, sample(logits, rows), strict=True)) == want


# ---- independence


def test_a_row_does_not_depend_on_its_batch() -> None:
    """Alone, in reverse, and among rows that go another way."""
    for vocab in (VOCAB, LARGE):
        rows = make_rows(vocab, times=2)
        logits = make_logits(len(rows), vocab)
        together = sample(logits, rows)
        alone = [sample(logits[n : n + 1], rows[n : n + 1])[0] for n in range(len(rows))]
        assert together == alone
        assert together == sample(logits.flip(0), rows[::-1])[::-1]
        assert together[::3] == sample(logits[::3], rows[::3])


def test_the_order_of_arrival_makes_no_difference() -> None:
    """Slots are used again and tables grow while others are in the middle of an answer."""
    rows = make_rows(times=3)
    logits = make_logits(len(rows))
    want = sample(logits, rows)
    sampler = make_sampler(rows[::-2])
    for row in rows[::-2]:
        sampler.forget(row.name)
    for row in [*rows[1::2], *rows[::2]]:
        sampler.add(row.name, row.params, row.choice, row.prompt, row.generated)
    assert sampler.sample(logits, [row.name for row in rows]).ids.tolist() == want


def test_choices_and_seeds_are_drawn_independently() -> None:
    params = SamplingParams(temperature=1.0, seed=5)
    logits = torch.zeros(1, VOCAB)
    rows = [Row(str(n), params, (1,), choice=n) for n in range(200)]
    found = sample(logits.expand(200, -1), rows)
    assert len(set(found)) > 60
    assert found == [plain(logits[0], row) for row in rows]


def test_forgotten_requests_leave_nothing_behind() -> None:
    sampler = make_sampler(make_rows())
    for row in make_rows():
        sampler.forget(row.name)
        sampler.forget(row.name)
    assert not list(sampler.names())


# ---- the draw


@pytest.mark.parametrize("fields", [{"top_k": 6}, {"top_p": 0.7}, {"min_p": 0.03}, {}])
def test_tokens_follow_the_filtered_distribution(fields: dict[str, Any]) -> None:
    """Chi-square over choices and indices of one seed; what a filter takes out is never drawn."""
    num = 20_000
    params = SamplingParams(temperature=1.3, seed=99, **fields)
    logits = make_logits(1)
    want = torch.tensor(plain_sampling.chances(logits[0].tolist(), params)) * num
    rows = [Row(str(choice), params, (1,), choice=choice) for choice in range(num // 20)]
    sampler = make_sampler(rows)
    names = [row.name for row in rows]
    chosen = [sampler.sample(logits.expand(len(rows), -1), names).ids for _ in range(20)]
    counts = torch.bincount(torch.cat(chosen), minlength=VOCAB).double()
    assert int(counts[want == 0].sum()) == 0
    rare = (want > 0) & (want < 5)
    bins = [(counts[token], want[token]) for token in (want >= 5).nonzero().flatten().tolist()]
    if int(rare.sum()):
        bins.append((counts[rare].sum(), want[rare].sum()))
    degrees = len(bins) - 1
    distance = sum(float((have - due) ** 2 / due) for have, due in bins)
    assert distance < degrees + 4 * (2 * degrees) ** 0.5 + 4


def test_equal_scores_at_the_edge_of_top_k_stay() -> None:
    """As in transformers, whether or not they are all among the candidates."""
    logits = torch.zeros(1, VOCAB)
    logits[0, 50] = 1.0
    rows = [
        Row(str(seed), SamplingParams(temperature=5.0, top_k=3, seed=seed), (1,))
        for seed in range(400)
    ]
    assert len(set(sample(logits.expand(400, -1), rows))) > 60


def test_the_cheap_way_draws_what_the_dear_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in make_rows(LARGE, times=8) if 0 < row.params.top_k <= 128]
    logits = make_logits(len(rows), LARGE)
    cheap = sample(logits, rows)
    monkeypatch.setattr(draw, "_MOST_NARROW", 0)
    assert sample(logits, rows) == cheap
    assert len(rows) > 10


def test_the_largest_scores_tell_where_top_p_ends_or_all_are_sorted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Peaked rows end among them, flat ones do not, and top_k may be larger too."""
    fields: list[dict[str, Any]] = [{"top_p": 0.9}, {"top_p": 0.5, "top_k": 5000}, {"top_k": 900}]
    rows = [
        Row(str(n), SamplingParams(temperature=1.0, seed=n, **fields[n % 3]), (1,))
        for n in range(30)
    ]
    for spread in (8.0, 0.5):
        logits = torch.randn(30, LARGE, generator=seeded(1)) * spread
        found = sample(logits, rows)
        assert found == [plain(line, row) for line, row in zip(logits, rows, strict=True)]
        with monkeypatch.context() as patch:
            patch.setattr(draw, "_HEAD", LARGE)
            assert sample(logits, rows) == found


# ---- broken logits and extreme parameters


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("vocab", [VOCAB, LARGE])
def test_broken_logits_are_that_rows_trouble_alone(number: float, vocab: int) -> None:
    rows = make_rows(vocab, times=1)
    logits = make_logits(len(rows), vocab)
    want = sample(logits, rows)
    broken = range(0, len(rows), 2)
    for n in broken:
        logits[n, 8 + n] = number
        want[n] = BROKEN
    assert sample(logits, rows) == want


def test_extreme_parameters_stay_inside_the_vocabulary() -> None:
    """A temperature near zero is greedy; a penalty that overflows is a broken row, as is one
    whose every token is forbidden."""
    every = tuple(range(VOCAB))
    rows = [
        Row("cold", SamplingParams(temperature=5e-324, seed=3), (1,)),
        Row("overflow", SamplingParams(temperature=1.0, repetition_penalty=1e-45), every),
        Row("never", SamplingParams(min_tokens=1, stop_token_ids=every), (1,)),
    ]
    logits = make_logits(3)
    assert sample(logits, rows) == [int(logits[0].argmax()), BROKEN, BROKEN]


def test_ids_outside_of_the_vocabulary_change_nothing() -> None:
    """They come from another process, and would be written outside of a tensor."""
    fields: dict[str, Any] = {"stop_token_ids": (VOCAB, -1), "logit_bias": ((VOCAB, 9.0), (-1, 9))}
    rows = [Row("r", SamplingParams(min_tokens=3, **fields), (1,))]
    logits = make_logits(1)
    assert sample(logits, rows) == [int(logits[0].argmax())]


def test_half_precision_logits_are_sampled_in_full() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        rows = make_rows(times=2)
        logits = make_logits(len(rows)).to(dtype)
        want = [plain(line.float(), row) for line, row in zip(logits, rows, strict=True)]
        assert sample(logits, rows) == want


def test_the_logits_are_left_as_they_are() -> None:
    rows = make_rows(times=1)
    logits = make_logits(len(rows))
    before = logits.clone()
    sample(logits, rows)
    assert torch.equal(logits, before)


# ---- logprobs


def test_logprobs_are_those_of_the_raw_logits() -> None:
    """Whatever penalties, bias and filters do to the draw, and for those only who ask."""
    for vocab in (VOCAB, LARGE):
        rows = [
            replace(row, params=replace(row.params, logprobs=(None, 0, 3, 20)[n % 4]))
            for n, row in enumerate(make_rows(vocab, times=1))
        ]
        logits = make_logits(len(rows), vocab)
        found = make_sampler(rows, vocab).sample(logits, [row.name for row in rows])
        for row, line, token, got in zip(
            rows, logits, found.ids.tolist(), found.logprobs(), strict=True
        ):
            if row.params.logprobs is None:
                assert got is None
                continue
            assert got is not None
            check_logprobs(got, line, token, row.params.logprobs)


def check_logprobs(got: TokenLogprobs, logits: torch.Tensor, token: int, top: int) -> None:
    want = plain_sampling.logprobs(logits.tolist())
    likeliest = sorted(range(len(want)), key=lambda at: -want[at])[:top]
    assert got.logprob == pytest.approx(want[token], abs=1e-4)
    assert [at for at, _ in got.top] == likeliest
    assert [value for _, value in got.top] == pytest.approx(
        [want[at] for at in likeliest], abs=1e-4
    )


def test_asking_for_logprobs_changes_no_token() -> None:
    rows = make_rows(times=2)
    logits = make_logits(len(rows))
    asking = [replace(row, params=replace(row.params, logprobs=5)) for row in rows]
    assert sample(logits, rows) == sample(logits, asking)


def test_plain_choices_take_the_likeliest_token_as_if_they_had_been_sampled() -> None:
    """The index goes on, so that a later step of any kind draws as ever."""
    torch.manual_seed(2)
    steps = torch.randn(6, 2, VOCAB)
    plain, drawn = SamplingParams(), SamplingParams(temperature=1.1, seed=5)
    whole, mixed = (Sampler(vocab_size=VOCAB, device=torch.device("cpu")) for _ in range(2))
    for sampler in (whole, mixed):
        sampler.add("plain", plain, 0, [1, 2], [])
        sampler.add("drawn", drawn, 0, [1, 2], [])
    assert mixed.plain(["plain"]) and not mixed.plain(["plain", "drawn"])
    for logits in steps:
        one, both = logits[:1], whole.sample(logits, ["plain", "drawn"]).ids.tolist()
        taken = mixed.take(one.argmax(-1), ["plain"])
        assert taken.ids.tolist() == both[:1]
        assert taken.logprobs() == [None]
        assert mixed.sample(logits[1:], ["drawn"]).ids.tolist() == both[1:]
    mixed.forget("plain")
    assert not mixed.plain(["plain"])


@pytest.mark.parametrize("name", CONTROLS)
def test_only_a_greedy_choice_without_controls_is_plain(name: str) -> None:
    sampler = Sampler(vocab_size=VOCAB, device=torch.device("cpu"))
    sampler.add("it", SamplingParams(**CONTROLS[name]), 0, [1], [])
    assert sampler.plain(["it"]) is (name == "greedy")
    sampler.add("scored", SamplingParams(logprobs=0), 0, [1], [])
    assert not sampler.plain(["scored"])
