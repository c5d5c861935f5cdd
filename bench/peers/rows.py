"""The lines of the table: a figure of a load, what is good, and which ratio is aimed at. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.peers.servers import OURS, PEERS
from epd.bench.metrics import percentile

ONE_BY_ONE = "transformers"
"""Servers that answer no two requests together."""

Runs = Sequence[Mapping[str, Any]]
"""What one server did under one load, round by round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`target`: ours over the best peer's; at least that where more is better, else at most.

    `at_once`: only servers that work on several requests at once can be compared.
    """

    name: str
    load: str
    unit: str
    figure: Callable[[Runs], float | None]
    target: float
    more_is_better: bool = False
    at_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row with its figures by server; `ratio` is our best over the best peer."""

    row: Row
    figures: Mapping[str, float]

    @property
    def ours(self) -> str | None:
        """Our best server."""
        return self._best(OURS)

    @property
    def peer(self) -> str | None:
        """The best of the others."""
        return self._best(self._peers())

    @property
    def ratio(self) -> float | None:
        """None where one of both is missing."""
        return self._over(self.peer)

    @property
    def alike(self) -> float | None:
        """The same against the best peer that computes in bfloat16, as we do."""
        return self._over(self._best(name for name in self._peers() if "bfloat16" in name))

    def _peers(self) -> list[str]:
        alone = self.row.at_once
        return [name for name in PEERS if not (alone and name.startswith(ONE_BY_ONE))]

    def _over(self, peer: str | None) -> float | None:
        if self.ours is None or peer is None:
            return None
        return self.figures[self.ours] / self.figures[peer]

    @property
    def reached(self) -> bool:
        """The target."""
        ratio, row = self.ratio, self.row
        if ratio is None:
            return False
        return ratio >= row.target if row.more_is_better else ratio <= row.target

    def _best(self, names: Iterable[str]) -> str | None:
        known = [name for name in names if name in self.figures]
        sign = -1 if self.row.more_is_better else 1
        return min(known, key=lambda name: sign * self.figures[name], default=None)


def _each(field: str, part: str = "requests") -> Callable[[Runs], list[float]]:
    def values(runs: Runs) -> list[float]:
        found = [one[field] for run in runs for one in run[part]]
        return [value for value in found if value is not None]

    return values


def _median_ms(field: str) -> Callable[[Runs], float | None]:
    def figure(runs: Runs) -> float | None:
        values = _each(field)(runs)
        return 1000 * statistics.median(values) if values else None

    return figure


def _mean_ms(field: str) -> Callable[[Runs], float | None]:
    def figure(runs: Runs) -> float | None:
        values = _each(field)(runs)
        return 1000 * statistics.fmean(values) if values else None

    return figure


def tokens_per_s(runs: Runs) -> float | None:
    """Of all answers, over the time from the first request to the last token."""
    seconds = sum(run["seconds"] for run in runs)
    return sum(_each("tokens")(runs)) / seconds if seconds else None


def _p99_of_streams_ms(runs: Runs) -> float | None:
    found = percentile(_each("tpot", "streams")(runs), 99)
    return None if found is None else 1000 * found


ROWS = (
    Row(
        name="one text at a time: time per token",
        load="alone",
        unit="ms",
        figure=_median_ms("tpot"),
        target=0.7,
    ),
    Row(
        name="one text at a time: first token",
        load="alone",
        unit="ms",
        figure=_median_ms("ttft"),
        target=0.9,
    ),
    Row(
        name="8 texts at once: throughput",
        load="texts",
        unit="tokens/s",
        figure=tokens_per_s,
        target=1.5,
        more_is_better=True,
    ),
    Row(
        name="8 requests with a picture at once: throughput",
        load="pictures",
        unit="tokens/s",
        figure=tokens_per_s,
        target=1.7,
        more_is_better=True,
    ),
    Row(
        name="4 pictures in one request: first token",
        load="four",
        unit="ms",
        figure=_median_ms("ttft"),
        target=0.7,
    ),
    Row(
        name="8 of 10 pictures seen before: first token",
        load="again",
        unit="ms",
        figure=_mean_ms("ttft"),
        target=0.3,
    ),
    Row(
        name="texts beside 8 pictures: P99 time per token",
        load="mixed",
        unit="ms",
        figure=_p99_of_streams_ms,
        target=0.5,
        at_once=True,
    ),
)


def lines(runs: Runs) -> list[Line]:
    """Every row, of the runs that there are."""
    found = []
    for row in ROWS:
        figures = {}
        for name in (*OURS, *PEERS):
            of_server = [run for run in runs if (run["server"], run["load"]) == (name, row.load)]
            figure = row.figure(of_server) if of_server else None
            if figure is not None:
                figures[name] = figure
        found.append(Line(row=row, figures=figures))
    return found
