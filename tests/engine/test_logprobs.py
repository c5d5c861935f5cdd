"""Log-probabilities of prompt tokens."""

from __future__ import annotations

import pytest
import torch

from epd.engine.logprobs import measure_prompt, read_prompt
from tests.engine import plain_sampling

VOCAB = 97


@pytest.mark.parametrize("top", [0, 4, VOCAB + 5])
def test_each_row_tells_of_the_token_that_follows(top: int) -> None:
    """More rows than are measured at once."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(150, VOCAB, generator=generator) * 4
    ids = torch.randint(0, VOCAB, (150,), generator=generator)
    found = read_prompt(measure_prompt(logits, ids, top))
    assert len(found) == 150
    for line, token, got in zip(logits, ids.tolist(), found, strict=True):
        want = plain_sampling.logprobs(line.tolist())
        assert got.logprob == pytest.approx(want[token], abs=1e-4)
        assert [at for at, _ in got.top] == sorted(range(VOCAB), key=lambda at: -want[at])[:top]


def test_half_precision_is_measured_in_full() -> None:
    logits = (torch.randn(3, VOCAB) * 4).bfloat16()
    [first, *_] = read_prompt(measure_prompt(logits, torch.tensor([1, 2, 3]), 1))
    want = plain_sampling.logprobs(logits[0].float().tolist())
    assert first.logprob == pytest.approx(want[1], abs=1e-4)
