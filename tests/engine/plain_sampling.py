"""What each sampling control means, one row at a time, in plain Python and numpy. Slow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from epd.engine.randomness import uniform
from epd.types import SamplingParams

Scores = list[float]


def adjusted(
    logits: Sequence[float],
    params: SamplingParams,
    prompt: Sequence[int],
    generated: Sequence[int],
) -> Scores:
    """Bias, penalties and stops that come too early, in float32 as on the device."""
    scores = [np.float32(score) for score in logits]
    for token, bias in dict(params.logit_bias).items():
        scores[token] += np.float32(bias)
    penalty = np.float32(params.repetition_penalty)
    for token in {*prompt, *generated}:
        scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
    for token, count in Counter(generated).items():
        frequency = np.float32(count) * np.float32(params.frequency_penalty)
        scores[token] -= np.float32(params.presence_penalty) + frequency
    if len(generated) < params.min_tokens:
        for token in params.stop_token_ids:
            scores[token] = np.float32(-math.inf)
    return [float(score) for score in scores]


def chances(scores: Scores, params: SamplingParams) -> Scores:
    """The distribution that is drawn from: temperature, top_k, top_p, min_p, each renormalised."""
    best = max(scores)
    found = _normal([math.exp((score - best) / params.temperature) for score in scores])
    if params.top_k:
        kth = sorted(found, reverse=True)[min(params.top_k, len(found)) - 1]
        found = _normal([chance if chance >= kth else 0.0 for chance in found])
    if params.top_p < 1.0:
        total, least = 0.0, 0.0
        for chance in sorted(found, reverse=True):
            least, total = chance, total + chance
            if total >= params.top_p:
                break
        found = _normal([chance if chance >= least else 0.0 for chance in found])
    most = max(found)
    return _normal([chance if chance >= params.min_p * most else 0.0 for chance in found])


def choose(
    logits: Sequence[float],
    params: SamplingParams,
    prompt: Sequence[int],
    generated: Sequence[int],
    choice: int = 0,
) -> int:
    """The one right token."""
    scores = adjusted(logits, params, prompt, generated)
    if params.temperature == 0.0:
        return scores.index(max(scores))
    return walk(chances(scores, params), uniform(params.seed, choice, len(generated)))


def walk(distribution: Scores, point: float) -> int:
    """The token at whose chance the sum of chances, in vocabulary order, reaches the point."""
    total = 0.0
    for token, chance in enumerate(distribution):
        total += chance
        if total >= point:
            return token
    raise AssertionError("unreachable but for rounding")


def logprobs(logits: Sequence[float]) -> Scores:
    """Natural logarithms of the model's own chances."""
    best = max(logits)
    total = best + math.log(sum(math.exp(score - best) for score in logits))
    return [score - total for score in logits]


def _normal(weights: Scores) -> Scores:
    total = sum(weights)
    return [weight / total for weight in weights]
