"""What a microbenchmark says. Pure but for `cpu_us`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

NOT_KNOWN = "n/a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Microseconds of processor time per `unit`; `floor` is what `floor_is` takes."""

    name: str
    unit: str
    us: float
    floor: float
    floor_is: str


def cpu_us(work: Callable[[], object], *, times: int, rounds: int = 7) -> float:
    """Microseconds of this thread's processor time for one call: the least of rounds of `times`
    calls, for other work on the machine only adds, through its caches."""
    found = []
    for _ in range(rounds):
        began = time.thread_time()
        for _ in range(times):
            work()
        found.append((time.thread_time() - began) / times * 1e6)
    return min(found)


def table(figures: Sequence[Figure], committed: Mapping[str, float]) -> str:
    """A line per figure; `committed` has microseconds by name, as far as there are any."""
    lines = [f"{'':34}{'us':>12}{'per':>14}{'floor':>12}{'x floor':>9}{'x committed':>13}"]
    for one in figures:
        before = committed.get(one.name)
        ratio = NOT_KNOWN if not before else f"{one.us / before:.2f}"
        over = f"{one.us / one.floor:.2f}" if one.floor else NOT_KNOWN
        lines.append(
            f"{one.name:34}{one.us:>12.2f}{one.unit:>14}{one.floor:>12.2f}{over:>9}{ratio:>13}"
        )
    floors = {one.name.partition(",")[0]: one.floor_is for one in figures}
    return "\n".join([*lines, "", *(f"floor of {name}: {what}" for name, what in floors.items())])
