"""Experts with weights that stay in FP8: how near a card is to reading those that are taken once.

Measured are all experts of a layer, of several layers one after the other, replayed as one graph:
in FP8, and as transformers multiplies them in 16 bits. Every token takes experts of its own, drawn
once; the floor reads each that is taken, or computes what all tokens take, whichever is longer at
the measured rates. Products in FP8 may beat the second.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from bench.gpu.card import rates, repeat, replayed
from bench.gpu.floors import Rates
from bench.gpu.jobs import Facts, Report
from bench.gpu.rows import Row
from bench.gpu.shape import Experts
from epd.models.block_experts import BlockExperts
from epd.models.storage import FACTOR_BYTES, SCALES, SIDE
from epd.models.torchvision_shim import prepare_torchvision

TOKENS = (1, 8, 32, 128, 2048)
LAYERS = 4
SECONDS = 0.3
ITEM_BYTES = 2


def measure(
    report: Report, facts: Facts, *, experts: Experts, device: str, layers: int = LAYERS
) -> None:
    """A row for each number of tokens, in FP8 and in bfloat16."""
    known = rates(facts)
    for small in (True, False):
        made = [_layer(experts, device, small=small) for _ in range(layers)]
        for tokens in TOKENS:
            part = partial(_measure, report, known, experts, made, tokens, small=small)
            report.part("fp8", experts.name, part)


def stored_bytes(experts: Experts, *, small: bool) -> int:
    """Of one expert, in FP8 or in 16 bits. Its sides are whole blocks."""
    factors = FACTOR_BYTES * experts.weights // SIDE**2
    return experts.weights + factors if small else ITEM_BYTES * experts.weights


def _layer(experts: Experts, device: str, *, small: bool) -> nn.Module:
    """Weights of no meaning: none is zero, none is large."""
    if small:
        sizes = (experts.number, experts.hidden, experts.inside)
        made: nn.Module = BlockExperts(*sizes, torch.device(device))
    else:
        made = _of_transformers(experts)
    for name, weight in list(made.named_parameters()):
        if name.endswith(SCALES):
            weight.data.fill_(0.02)
            continue
        random = torch.randn(weight.shape, device=device) / 8
        values = random.to(torch.float8_e4m3fn) if small else (random * 0.02).bfloat16()
        setattr(made, name, nn.Parameter(values, requires_grad=False))
    return made


def _of_transformers(experts: Experts) -> nn.Module:
    """Without weights, multiplied as it does when it has chosen itself."""
    prepare_torchvision()
    from transformers import Qwen3VLMoeTextConfig
    from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeTextExperts

    config = Qwen3VLMoeTextConfig(
        num_experts=experts.number,
        hidden_size=experts.hidden,
        moe_intermediate_size=experts.inside,
        experts_implementation="grouped_mm",
    )
    with torch.device("meta"):
        made: nn.Module = Qwen3VLMoeTextExperts(config)
    return made


@torch.inference_mode()
def _measure(
    report: Report,
    known: Rates | None,
    experts: Experts,
    layers: Sequence[nn.Module],
    tokens: int,
    *,
    small: bool,
) -> None:
    weight = next(layers[0].parameters())
    like: dict[str, Any] = {"device": weight.device, "dtype": torch.bfloat16}
    x = torch.randn(tokens, experts.hidden, **like)
    shares = torch.rand(tokens, experts.taken, **like)
    chosen = [drawn(experts, tokens, seed).to(weight.device) for seed in range(len(layers))]

    def once() -> None:
        for layer, numbers in zip(layers, chosen, strict=True):
            layer(x, numbers, shares)

    times = repeat(replayed(once, weight.device), str(weight.device), SECONDS)
    seconds = statistics.median(times) / len(layers)
    used = statistics.mean(len(set(numbers.flatten().tolist())) for numbers in chosen)
    read = used * stored_bytes(experts, small=small)
    flops = 2 * tokens * experts.taken * experts.weights
    floor = None
    if known is not None:
        floor = max(read / known.bytes_per_s, flops / known.flops_per_s)
    report.row(
        Row(
            section="fp8",
            model=experts.name,
            what=f"experts of a layer, {tokens} tokens, {'fp8' if small else 'bfloat16'}",
            value=seconds * 1e3,
            unit="ms",
            floor=None if floor is None else floor * 1e3,
            share=None if floor is None else floor / seconds,
            detail={"bytes": read, "flops": flops, "experts": used, "seconds": times},
        )
    )


def drawn(experts: Experts, tokens: int, seed: int) -> torch.Tensor:
    """[tokens, taken] int64: of each token different ones, all equally likely."""
    random = torch.Generator().manual_seed(seed)
    return torch.rand(tokens, experts.number, generator=random).topk(experts.taken).indices
