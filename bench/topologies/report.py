"""From records to numbers: percentiles for people, one JSON object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from epd.bench.metrics import first_token_s, gaps_s, per_token_s, percentile
from epd.bench.records import Record

QUANTILES = (50, 90, 99)
COLUMNS = ("p50", "p90", "p99")
NOT_KNOWN = "n/a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One topology under one load, measured."""

    topology: str
    images: int
    concurrency: int
    records: Sequence[Record]
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


def summary(point: Point) -> dict[str, Any]:
    """The numbers of one point; times in seconds."""
    good = [record for record in point.records if not record.error]
    lasted = max((record.ended for record in point.records), default=0.0)
    tokens = sum(num for record in good for _, num in record.arrivals)
    return {
        "topology": point.topology,
        "images": point.images,
        "concurrency": point.concurrency,
        "requests": len(point.records),
        "errors": len(point.records) - len(good),
        "seconds": lasted,
        "prompt_tokens": sorted({record.prompt_tokens for record in good}),
        "completion_tokens": sorted({record.completion_tokens for record in good}),
        "requests_per_s": len(good) / lasted if lasted else None,
        "tokens_per_s": tokens / lasted if lasted else None,
        "ttft_s": _quantiles(first_token_s(record) for record in good),
        "tpot_s": _quantiles(per_token_s(record) for record in good),
        "itl_s": _quantiles(gap for record in good for gap in gaps_s(record)),
        "end_to_end_s": _quantiles(record.ended - record.sent for record in good),
        "stage_seconds": point.stages,
    }


def _quantiles(values: Iterable[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    return {f"p{rank}": percentile(known, rank) for rank in QUANTILES}


def table(points: Sequence[Point]) -> str:
    """For people: a line per point, then where each point's time went, then its errors."""
    rows = [
        ["topology", "images", "clients", "requests", "errors", "tokens/s"]
        + [f"{name} {column}" for name in ("TTFT", "TPOT", "ITL") for column in COLUMNS]
    ]
    for found in map(summary, points):
        rate = found["tokens_per_s"]
        rows.append(
            [found["topology"], str(found["images"]), str(found["concurrency"])]
            + [str(found["requests"]), str(found["errors"])]
            + [NOT_KNOWN if rate is None else f"{rate:.1f}"]
            + [_ms(found[f"{n}_s"][c]) for n in ("ttft", "tpot", "itl") for c in COLUMNS]
        )
    lines = [*_aligned(rows), "", "times in ms", ""]
    for point in points:
        lines.append(f"{_title(point)}: {_spent(point.stages)}")
    return "\n".join([*lines, *_errors(points)])


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


def _ms(seconds: float | None) -> str:
    return NOT_KNOWN if seconds is None else f"{seconds * 1000:.1f}"


def _title(point: Point) -> str:
    return f"{point.topology} images={point.images} clients={point.concurrency}"


def _spent(stages: dict[str, dict[str, float]]) -> str:
    """The workers' seconds by stage and phase."""
    if not any(stages.values()):
        return NOT_KNOWN
    return "; ".join(
        f"{stage} " + ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in phases.items())
        for stage, phases in sorted(stages.items())
        if phases
    )


def _errors(points: Sequence[Point]) -> list[str]:
    """Each different one once, by point."""
    return [
        f"{_title(point)}: error: {error}"
        for point in points
        for error in sorted({record.error for record in point.records if record.error})
    ]
