"""Where the time went: running totals of milliseconds that workers report in /metrics.

Workers report with every heartbeat, so a reading is taken once each of them has been heard again.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping

import httpx

SAMPLE = re.compile(r'epd_worker_(\w+)\{stage="([^"]*)",worker="([^"]*)"\} (\S+)')
HEARD = "links_received"
MOMENTS = ("step_age_ms",)
"""In milliseconds too, but no totals."""

HEARTBEATS = 3
PAUSE_S = 0.1
PATIENCE_S = 15.0

Gauges = Mapping[tuple[str, str], Mapping[str, float]]
"""(worker, stage) -> what it reports."""


def parse(page: str) -> Gauges:
    """The workers' gauges of a /metrics page."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for name, stage, worker, value in SAMPLE.findall(page):
        found[worker, stage][name] = float(value)
    return found


async def settled(url: str) -> Gauges:
    """Gauges as they are now: every worker has said them after this call."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
        first = await _read(http)
        gauges = first
        for _ in range(int(PATIENCE_S / PAUSE_S)):
            await asyncio.sleep(PAUSE_S)
            gauges = await _read(http)
            if gauges.keys() >= first.keys() and all(
                gauges[worker].get(HEARD, 0) >= said.get(HEARD, 0) + HEARTBEATS
                for worker, said in first.items()
            ):
                break
    return gauges


async def _read(http: httpx.AsyncClient) -> Gauges:
    response = await http.get("/metrics")
    return parse(response.text) if response.is_success else {}


def seconds_by_stage(before: Gauges, after: Gauges) -> dict[str, dict[str, float]]:
    """stage -> phase -> seconds between two readings, over all workers of the stage."""
    spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (worker, stage), gauges in after.items():
        for name, value in gauges.items():
            if name.endswith("_ms") and name not in MOMENTS:
                earlier = before.get((worker, stage), {}).get(name, 0.0)
                spent[stage][name.removesuffix("_ms")] += (value - earlier) / 1000
    return {stage: dict(phases) for stage, phases in spent.items()}


def total(before: Gauges, after: Gauges, name: str) -> float | None:
    """By how much one counter grew, over all workers; None where nobody reports it."""
    grown = [
        gauges[name] - before.get(key, {}).get(name, 0.0)
        for key, gauges in after.items()
        if name in gauges
    ]
    return sum(grown) if grown else None
