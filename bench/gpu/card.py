"""What the card can do: how fast it reads memory, and how fast it multiplies matrices.

The rate of a plain matrix product is what prefill and encode are compared with, rather than the
number on the data sheet, which no card reaches for seconds within its power limit.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from bench.gpu.floors import Rates
from bench.gpu.jobs import Facts, Report
from bench.gpu.rows import Row
from bench.gpu.workloads import CardPlan


def measure(report: Report, facts: Facts, *, device: str, dtype: str, plan: CardPlan) -> None:
    """Emits facts "flops_per_s" and "bytes_per_s"."""
    flops = max(matrix_rate(side, device, getattr(torch, dtype), plan) for side in plan.sides)
    read = read_rate(device, plan)
    report.fact("flops_per_s", flops)
    report.fact("bytes_per_s", read)
    report.row(_row(f"matrix product, {dtype}", flops / 1e12, "TFLOP/s"))
    report.row(_row("memory read", read / 1e9, "GB/s"))


def rates(facts: Facts) -> Rates | None:
    """None where the card was not measured."""
    if not {"flops_per_s", "bytes_per_s"} <= facts.keys():
        return None
    return Rates(bytes_per_s=facts["bytes_per_s"], flops_per_s=facts["flops_per_s"])


def matrix_rate(side: int, device: str, dtype: torch.dtype, plan: CardPlan) -> float:
    """Operations per second of [side, side] times [side, side]."""
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(one)
    seconds = repeat(lambda: torch.mm(one, other, out=out), device, plan.seconds)
    return float(2 * side**3 / statistics.median(seconds))


def read_rate(device: str, plan: CardPlan) -> float:
    """Bytes per second of the better of a sum, which reads, and a copy, which writes as much."""
    values = torch.ones(plan.read_bytes // 4, device=device)
    target = torch.empty_like(values)
    read = statistics.median(repeat(lambda: values.sum(), device, plan.seconds))
    copied = statistics.median(repeat(lambda: target.copy_(values), device, plan.seconds))
    return max(values.nbytes / read, 2 * values.nbytes / copied)


def repeat(call: Callable[[], object], device: str, seconds: float, least: int = 3) -> list[float]:
    """Seconds of each call with the wait for the device, after one that is not counted."""
    call()
    synchronize(device)
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < least or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        synchronize(device)
        found.append(time.perf_counter() - began)
    return found


def replayed(call: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The same as one launch, where there is a card."""
    if device.type != "cuda":
        return call
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def synchronize(device: str) -> None:
    """Wait until all that was launched is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _row(what: str, value: float, unit: str) -> Row:
    return Row(section="card", model="", what=what, value=value, unit=unit)
