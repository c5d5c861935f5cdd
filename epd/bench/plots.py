"""What was measured, as pictures: latencies, rates against latencies, and where requests were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from epd.bench import metrics
from epd.bench.load import Run
from epd.bench.records import Record

Measured = tuple[Mapping[str, Any], Run]
SIZE_INCHES = (9.0, 5.0)
MOST_ROWS = 60
"""Requests of a waterfall: more would be no wider than a line."""

PHASES = ("to server", "items read", "waiting for room", "prefill", "decode", "back")
COLORS = ("0.8", "tab:purple", "tab:orange", "tab:blue", "tab:green", "0.6")


def plot(found: Sequence[Measured], folder: Path) -> list[Path]:
    """Writes PNGs into the folder, which is made; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [_save(_latencies(found), folder / "latency_cdf.png")]
    if len(found) > 1:
        files.append(_save(_sweep(found), folder / "rate_sweep.png"))
    records = [record for record in found[-1][1].records if not record.error]
    files.append(_save(_waterfall(records), folder / "waterfall.png"))
    return files


def cdf(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Values in order, and the share of all that are no greater."""
    ordered = sorted(values)
    return ordered, [(place + 1) / len(ordered) for place in range(len(ordered))]


def phases(record: Record) -> list[tuple[str, float, float]]:
    """(phase, begin, seconds) of a request, from what `epd` told of it, else from its first token.

    The server's moments are since the request's arrival there. When that was is not known but for
    the time on the way, both ways together: half of it is taken to lie before.
    """
    whole = metrics.end_to_end_s(record)
    first = metrics.first_token_s(record)
    ms = (record.path or {}).get("ms", {})
    if "total" not in ms or "first_token" not in ms:
        middle = whole if first is None else first
        return [
            ("prefill", record.sent, middle),
            ("decode", record.sent + middle, whole - middle),
        ]
    total = ms["total"] / 1000
    begin = record.sent + max(0.0, whole - total) / 2
    marks = [ms.get("layouts", 0.0), ms.get("admitted", 0.0), ms["first_token"], ms["total"]]
    ends = [begin, *(begin + mark / 1000 for mark in _rising(marks)), record.ended]
    begins = [record.sent, *ends[:-1]]
    return [
        (name, at, max(0.0, end - at)) for name, at, end in zip(PHASES, begins, ends, strict=True)
    ]


def _rising(marks: Sequence[float]) -> list[float]:
    """A moment that was not told is that of the one before."""
    found: list[float] = []
    for mark in marks:
        found.append(max(mark, found[-1] if found else 0.0))
    return found


def _latencies(found: Sequence[Measured]) -> Figure:
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    for axes, (name, of) in zip(
        figure.subplots(1, 2),
        (("TTFT (s)", metrics.first_token_s), ("E2E latency (s)", metrics.end_to_end_s)),
        strict=True,
    ):
        for result, run in found:
            known = [of(record) for record in run.records if not record.error]
            values = [value for value in known if value is not None]
            if values:
                axes.step(*cdf(values), where="post", label=_label(result))
        _dress(axes, name, "share of requests")
    return figure


def _sweep(found: Sequence[Measured]) -> Figure:
    """Runs in the order of their throughput."""
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    ordered = sorted(found, key=lambda one: one[0]["request_throughput"] or 0.0)
    rates = [result["request_throughput"] for result, _ in ordered]
    for axes, key in zip(figure.subplots(1, 2), ("ttft", "tpot"), strict=True):
        for part in ("median", "p99"):
            axes.plot(rates, [r[f"{part}_{key}_ms"] for r, _ in ordered], "o-", label=part)
        _dress(axes, "requests per second", f"{key.upper()} (ms)")
    return figure


def _waterfall(records: Sequence[Record]) -> Figure:
    """The first requests of a run, one row each, in the order in which they were sent."""
    shown = sorted(records, key=lambda record: record.sent)[:MOST_ROWS]
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    spans = [phases(record) for record in shown]
    for name, color in zip(PHASES, COLORS, strict=True):
        bars = [
            (row, at, seconds)
            for row, of_request in enumerate(spans)
            for phase, at, seconds in of_request
            if phase == name
        ]
        if bars:
            rows, begins, widths = zip(*bars, strict=True)
            axes.barh(rows, widths, left=begins, height=0.8, color=color, label=name)
    axes.invert_yaxis()
    _dress(axes, "seconds since the run began", "request")
    return figure


def _label(result: Mapping[str, Any]) -> str:
    rate = result["request_rate"]
    return f"{rate:g} requests/s" if isinstance(rate, float) else str(rate)


def _dress(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=120)
    return file
