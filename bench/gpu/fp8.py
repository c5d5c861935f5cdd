"""Products with weights that stay in FP8: what a step saves, and how near a card is to it.

    python -m bench.gpu.fp8      # the bytes, on any machine; a JSON object

Measured are the four products of a layer (q, k and v; o; gate and up; down), of several layers one
after the other, so that no weight is still in the cache, replayed as one graph, so that no launch
is waited for. The floor of few rows is what they read at the measured rate, that of many what they
compute at the measured rate of 16 bits, which products in FP8 may beat.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from bench.gpu.card import rates, repeat, replayed
from bench.gpu.floors import Rates, decode_bytes
from bench.gpu.jobs import Facts, Report
from bench.gpu.rows import Row
from bench.gpu.shape import REAL, Shape, Text, read_shape
from epd.models.block_linear import BlockLinear
from epd.models.storage import FACTOR_BYTES, SIDE

FEW, MANY = (1, 8, 32, 64), (128, 2048)
LAYERS = 6
SECONDS = 0.3
CONTEXT = 1024


def measure(
    report: Report, facts: Facts, *, shape: Shape, device: str, layers: int = LAYERS
) -> None:
    """A row for each number of rows, in FP8 and in the dtype of the shape."""
    known = rates(facts)
    for small in (True, False):
        made = [_layer(shape, device, small=small) for _ in range(layers)]
        for rows in (*FEW, *MANY):
            part = partial(_measure, report, known, shape, made, rows)
            report.part("fp8", shape.name, part)


def products(text: Text) -> tuple[tuple[int, int], ...]:
    """Outputs and inputs of each of a layer's products."""
    attended = text.heads * text.head_dim
    return (
        (attended + 2 * text.kv_heads * text.head_dim, text.hidden),
        (text.hidden, attended),
        (2 * text.intermediate, text.hidden),
        (text.hidden, text.intermediate),
    )


def step_bytes(shape: Shape, batch: int, context: int) -> tuple[int, int]:
    """The least that a decode step moves: with weights of layers in FP8, and as they are."""
    plain = decode_bytes(shape, batch, context).total
    saved = sum(n * k * shape.item_bytes - _stored_bytes(n, k) for n, k in products(shape.text))
    return plain - shape.text.layers * saved, plain


def _stored_bytes(n: int, k: int) -> int:
    return n * k + FACTOR_BYTES * -(-n // SIDE) * -(-k // SIDE)


def _layer(shape: Shape, device: str, *, small: bool) -> list[nn.Module]:
    """Weights of no meaning: none is zero, none is large."""
    made: list[nn.Module] = []
    for n, k in products(shape.text):
        weight = torch.randn(n, k, device=device) / 8
        if small:
            factors = torch.full((-(-n // SIDE), -(-k // SIDE)), 0.02, device=device)
            made.append(BlockLinear(weight.to(torch.float8_e4m3fn), factors, None))
        else:
            made.append(nn.Linear(1, 1, bias=False, device="meta"))
            weight = weight.to(getattr(torch, shape.dtype)) * 0.02
            made[-1].weight = nn.Parameter(weight, requires_grad=False)
    return made


@torch.inference_mode()
def _measure(
    report: Report,
    known: Rates | None,
    shape: Shape,
    layers: Sequence[Sequence[nn.Module]],
    rows: int,
) -> None:
    weights = [module.get_parameter("weight") for layer in layers for module in layer]
    small = weights[0].dtype is torch.float8_e4m3fn
    dtype, device = getattr(torch, shape.dtype), weights[0].device
    inputs = {
        w.shape[1]: torch.randn(rows, w.shape[1], device=device, dtype=dtype) for w in weights
    }

    def once() -> None:
        for layer in layers:
            for module in layer:
                weight = module.get_parameter("weight")
                x = inputs[weight.shape[1]]
                module(x) if small else F.linear(x, weight)

    times = repeat(replayed(once, device), str(device), SECONDS)
    seconds = statistics.median(times) / len(layers)
    read = sum(p.nbytes for module in layers[0] for p in module.parameters())
    flops = 2 * rows * sum(n * k for n, k in products(shape.text))
    floor = None
    if known is not None:
        floor = read / known.bytes_per_s if rows in FEW else flops / known.flops_per_s
    report.row(
        Row(
            section="fp8",
            model=shape.name,
            what=f"products of a layer, {rows} rows, {'fp8' if small else shape.dtype}",
            value=seconds * 1e3,
            unit="ms",
            floor=None if floor is None else floor * 1e3,
            share=None if floor is None else floor / seconds,
            detail={"bytes": read, "flops": flops, "seconds": times},
        )
    )


def main() -> None:
    """The count of bytes for the real shapes."""
    found = [
        {"model": shape.name, "batch": batch, "fp8": small, "plain": plain}
        for shape in map(read_shape, REAL)
        for batch in (1, 8, 32, 128)
        for small, plain in [step_bytes(shape, batch, CONTEXT)]
    ]
    sys.stdout.write(json.dumps({"context": CONTEXT, "steps": found}) + "\n")


if __name__ == "__main__":
    main()
