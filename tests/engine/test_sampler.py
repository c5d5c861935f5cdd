"""The sampler against transformers' logits processors."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from epd.engine.randomness import uniform
from epd.engine.sampler import BROKEN, Sampler, SampleRow
from epd.models.torchvision_shim import prepare_torchvision
from epd.types import RequestKey, SamplingParams

VOCAB = 97


def make_row(number: int, sampling: SamplingParams, *, index: int = 0) -> SampleRow:
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(0, VOCAB, (number % 7 + 1,), generator=generator).tolist()
    return SampleRow(RequestKey(f"r{number}", 0), sampling, index, tokens)


def make_rows() -> list[SampleRow]:
    """Every combination of parameters, each with a few seeds."""
    combinations = [
        SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, repetition_penalty=again)
        for temperature in (0.0, 0.3, 1.0, 2.5)
        for top_p in (0.0, 0.4, 0.95, 1.0)
        for top_k in (0, 1, 7, VOCAB, VOCAB + 9)
        for again in (1.0, 0.8, 1.7)
    ]
    return [
        make_row(
            number,
            SamplingParams(
                temperature=params.temperature,
                top_p=params.top_p,
                top_k=params.top_k,
                repetition_penalty=params.repetition_penalty,
                seed=number * 7919,
            ),
            index=number % 5,
        )
        for number, params in enumerate(combinations * 3)
    ]


def make_sampler() -> Sampler:
    return Sampler(vocab_size=VOCAB, device=torch.device("cpu"))


def make_logits(num: int) -> torch.Tensor:
    return torch.randn(num, VOCAB, generator=torch.Generator().manual_seed(num)) * 3


def expected(logits: torch.Tensor, row: SampleRow) -> int:
    """One row through transformers' processors in the order of generate()."""
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    params = row.sampling
    chain = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature > 0:
        chain.append(TemperatureLogitsWarper(params.temperature))
        if params.top_k:
            chain.append(TopKLogitsWarper(params.top_k))
        if params.top_p < 1:
            chain.append(TopPLogitsWarper(params.top_p))
    scores = chain(torch.tensor([row.token_ids]), logits.double()[None])[0]
    if params.temperature == 0:
        return int(scores.argmax())
    point = uniform(params.seed, row.index)
    total = 0.0
    chances = scores.softmax(-1).tolist()
    for token, chance in enumerate(chances):
        total += chance
        if total >= point:
            return token
    raise AssertionError("unreachable but for rounding")


def sample(logits: torch.Tensor, rows: Sequence[SampleRow]) -> list[int]:
    found: list[int] = make_sampler().sample(logits, rows).tolist()
    return found


def test_batch_equals_transformers_row_by_row() -> None:
    """All combinations in one batch."""
    prepare_torchvision()
    rows = make_rows()
    logits = make_logits(len(rows))
    want = [expected(line, row) for line, row in zip(logits, rows, strict=True)]
    assert sample(logits, rows) == want
    assert len(set(want)) > 40


def test_a_row_does_not_depend_on_its_batch() -> None:
    """Alone, and in reverse company."""
    rows = make_rows()
    logits = make_logits(len(rows))
    together = sample(logits, rows)
    assert together == [sample(logits[n : n + 1], rows[n : n + 1])[0] for n in range(len(rows))]
    assert together == sample(logits.flip(0), rows[::-1])[::-1]


def test_tokens_follow_the_filtered_distribution() -> None:
    """Chi-square over 20,000 indices of one seed: 6 tokens survive, none other is ever drawn."""
    num = 20_000
    params = SamplingParams(temperature=1.3, top_k=6, seed=99)
    logits = make_logits(1)
    rows = [SampleRow(RequestKey("r", 0), params, index, (1,)) for index in range(num)]
    counts = torch.bincount(torch.tensor(sample(logits.expand(num, -1), rows)), minlength=VOCAB)
    kept = logits[0].topk(6).indices
    want = (logits[0, kept] / 1.3).softmax(-1) * num
    assert int(counts[kept].sum()) == num
    assert float(((counts[kept] - want) ** 2 / want).sum()) < 20.5  # 0.1 % at 5 degrees


def test_penalty_counts_generated_tokens_too() -> None:
    """The second sample of a request must see what the first one chose."""
    sampler = make_sampler()
    params = SamplingParams(repetition_penalty=100.0)
    logits = torch.zeros(1, VOCAB)
    logits[0, 3], logits[0, 5] = 2.0, 1.0
    tokens = [9]
    for want in (3, 5):
        row = SampleRow(RequestKey("r", 0), params, len(tokens) - 1, tuple(tokens))
        assert sampler.sample(logits, [row]).tolist() == [want]
        tokens.append(want)


def test_forgotten_rows_are_clean_for_the_next_request() -> None:
    """Rows of the table are used again, and grow while in use."""
    sampler = make_sampler()
    params = SamplingParams(repetition_penalty=2.0)
    logits = torch.ones(1, VOCAB)
    logits[0, 4] = 1.5
    for round_ in range(3):
        for number in range(20):
            key = RequestKey(f"r{number}", round_)
            seen = SampleRow(key, params, 0, (4,) if (number + round_) % 2 else (6,))
            want = 0 if (number + round_) % 2 else 4
            assert sampler.sample(logits, [seen]).tolist() == [want]
        for number in range(20):
            sampler.forget(RequestKey(f"r{number}", round_))
        assert not list(sampler.keys())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_are_told_apart(temperature: float) -> None:
    """NaN in one row is that row's trouble alone."""
    logits = make_logits(3)
    params = SamplingParams(temperature=temperature, repetition_penalty=1.5, top_p=0.9, top_k=5)
    rows = [make_row(n, params) for n in range(3)]
    whole = sample(logits, rows)
    logits[1, 8] = torch.nan
    assert sample(logits, rows) == [whole[0], BROKEN, whole[2]]


def test_extreme_parameters_stay_inside_the_vocabulary() -> None:
    """A temperature near zero is greedy; a penalty that overflows is a broken row."""
    logits = make_logits(2)
    cold = make_row(0, SamplingParams(temperature=5e-324, seed=3))
    again = SamplingParams(temperature=1.0, repetition_penalty=1e-45)
    hot = SampleRow(RequestKey("hot", 0), again, 0, tuple(range(VOCAB)))
    assert sample(logits, [cold, hot]) == [int(logits[0].argmax()), BROKEN]


def test_half_precision_logits_are_sampled_in_full() -> None:
    """bfloat16 has ties: those at the edge of top_k stay, as in transformers."""
    prepare_torchvision()
    rows = make_rows()
    logits = make_logits(len(rows)).bfloat16()
    want = [expected(line.float(), row) for line, row in zip(logits, rows, strict=True)]
    different = [
        row.sampling.top_p
        for got, token, row in zip(sample(logits, rows), want, rows, strict=True)
        if got != token
    ]
    # Which of several equal tokens top_p cuts is the sort's choice; all else is exact.
    assert all(top_p < 1.0 for top_p in different) and len(different) <= len(rows) // 50
