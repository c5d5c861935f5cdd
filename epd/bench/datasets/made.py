"""Requests that are made up: text alone, or with pictures, videos, sounds, or some of each."""

from __future__ import annotations

import random

from epd.bench.datasets.asks import Ask
from epd.bench.datasets.shape import KINDS, Shape, with_items
from epd.bench.datasets.words import text


def made(shape: Shape, kind: str) -> list[Ask]:
    """`kind` is one of KINDS, or mixed: each request is of one kind, drawn by the weights."""
    rng = random.Random(f"{kind} {shape.seed}")
    kinds = _mixed(shape, rng) if kind == "mixed" else [kind] * shape.num
    items = with_items(shape, [{one: shape.count(one, rng)} for one in kinds])
    found = []
    for of_request in items:
        num_words = shape.measure.words(shape.length(shape.input_len, rng))
        output = shape.length(shape.output_len, rng)
        found.append(Ask(text=text(rng, num_words), items=of_request, output_tokens=output))
    return found


def _mixed(shape: Shape, rng: random.Random) -> list[str]:
    """Exactly the weights' shares, as far as the number of requests has them, in any order."""
    weights = [shape.mix.get(kind, 0.0) for kind in KINDS]
    total = sum(weights)
    ends = [round(sum(weights[: place + 1]) / total * shape.num) for place in range(len(KINDS))]
    found = [
        kind
        for kind, begin, end in zip(KINDS, [0, *ends], ends, strict=False)
        for _ in range(end - begin)
    ]
    rng.shuffle(found)
    return found
