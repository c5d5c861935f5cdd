"""From records to numbers, as the tools of sglang and vLLM define them. Pure.

TTFT is from sending a request to its first token; E2E latency to its last event; TPOT of one
request is what lies between these two over the tokens after the first; ITL are the single gaps
between arrivals. Only whole answers count in any of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from epd.bench.records import Record

RANKS = (90, 95, 99)
GOALS = ("ttft", "tpot", "e2el")


def percentile(values: Iterable[float], rank: float) -> float | None:
    """Between the two nearest values, in proportion; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    place = (len(ordered) - 1) * rank / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How values lie; None of nothing. `std` is that of these values, not of a population."""

    mean: float | None
    median: float | None
    std: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: Iterable[float | None], scale: float = 1.0) -> Spread:
        """Of those that are known, each times `scale`."""
        known = sorted(value * scale for value in values if value is not None)
        if not known:
            return cls(mean=None, median=None, std=None, p90=None, p95=None, p99=None, max=None)
        mean = math.fsum(known) / len(known)
        p90, p95, p99 = (percentile(known, rank) for rank in RANKS)
        return cls(
            mean=mean,
            median=percentile(known, 50),
            std=math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known)),
            p90=p90,
            p95=p95,
            p99=p99,
            max=known[-1],
        )


def first_token_s(record: Record) -> float | None:
    """TTFT."""
    return record.arrivals[0][0] - record.sent if record.arrivals else None


def end_to_end_s(record: Record) -> float:
    """E2E latency."""
    return record.ended - record.sent


def per_token_s(record: Record) -> float | None:
    """TPOT, None of an answer of one token."""
    if not record.arrivals or record.output_tokens < 2:
        return None
    return (record.ended - record.arrivals[0][0]) / (record.output_tokens - 1)


def gaps_s(record: Record) -> list[float]:
    """ITL: what a reader waits between tokens; tokens that come together share their wait."""
    return [
        (later - earlier) / num
        for (earlier, _), (later, num) in pairwise(record.arrivals)
        for _ in range(num)
    ]


def lateness_s(record: Record) -> float:
    """How much later than due it was sent: what the load generator itself was behind."""
    return max(0.0, record.sent - record.due)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Requests that met all goals, per second; and the share of all that were asked."""

    per_s: float
    share: float
    share_by_goal: dict[str, float]


def goodput(records: Sequence[Record], goals_ms: Mapping[str, float], seconds: float) -> Goodput:
    """`goals_ms` has names of GOALS. A failure meets none; an answer of one token has no TPOT."""
    met = [[_meets(record, goal, ms) for goal, ms in goals_ms.items()] for record in records]
    num = max(1, len(records))
    return Goodput(
        per_s=sum(map(all, met)) / seconds if seconds else 0.0,
        share=sum(map(all, met)) / num,
        share_by_goal={
            goal: sum(of_record[place] for of_record in met) / num
            for place, goal in enumerate(goals_ms)
        },
    )


def _meets(record: Record, goal: str, ms: float) -> bool:
    if record.error:
        return False
    if goal == "e2el":
        return end_to_end_s(record) * 1000 <= ms
    found = first_token_s(record) if goal == "ttft" else per_token_s(record)
    return found is None or found * 1000 <= ms


def most_at_once(records: Iterable[Record]) -> int:
    """The most requests that were under way at the same moment."""
    changes = sorted(
        change for record in records for change in ((record.sent, 1), (record.ended, -1))
    )
    most = running = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def most_tokens_in_a_second(records: Sequence[Record]) -> int:
    """Of the whole seconds since the first request was sent, the one with most tokens."""
    if not records:
        return 0
    began = min(record.sent for record in records)
    seconds = Counter[int]()
    for record in records:
        for at, num in record.arrivals:
            seconds[int(at - began)] += num
    return max(seconds.values(), default=0)


def stage_ms(record: Record) -> dict[str, float]:
    """What `epd` told of a request: milliseconds by stage and activity, of several items the
    longest, as in its header server-timing."""
    found: dict[str, float] = {}
    path = record.path or {}
    for item in path.get("items", ()):
        for activity, ms in item["ms"].items():
            stage = "prefill" if activity == "transfer" else "encode"
            name = f"{stage}.{activity}"
            found[name] = max(found.get(name, 0.0), ms)
    for stage in ("prefill", "decode"):
        for activity, ms in path.get(stage, {}).get("ms", {}).items():
            found[f"{stage}.{activity}"] = max(found.get(f"{stage}.{activity}", 0.0), ms)
    return found


def failures(records: Iterable[Record]) -> dict[str, int]:
    """How many failed, by cause, the most frequent first."""
    return dict(Counter(record.cause for record in records if record.error).most_common())
