"""What is reported: one row per number, with its floor and its target beside it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

NOT_KNOWN = "-"


@dataclass(frozen=True, slots=True)
class Target:
    """What a row's share should be, at least or at most."""

    limit: float
    at_least: bool

    def met(self, share: float) -> bool:
        """Is it?"""
        return share >= self.limit if self.at_least else share <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


DECODE = Target(0.80, at_least=True)
PREFILL = Target(0.55, at_least=True)
ENCODE = Target(0.45, at_least=True)
TTFT = Target(1.25, at_least=False)
HANDOFF = Target(0.05, at_least=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number. `floor` has the unit of `value`; `share` says how the two compare.

    `share` is what `target` is about: near one is good for rates and times alike, except for what
    should be a small part of something else. None: not known, for what it needs was not measured.
    """

    section: str
    model: str
    what: str
    value: float
    unit: str
    floor: float | None = None
    share: float | None = None
    target: Target | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """For people; nothing where there is no target."""
        if self.target is None:
            return ""
        if self.share is None:
            return "not known"
        return "met" if self.target.met(self.share) else "not met"

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What kept a part of a job from its numbers. `late`: there was no time for it, no more."""

    section: str
    model: str
    reason: str
    late: bool = False

    @property
    def said(self) -> str:
        """In one line."""
        return f"not measured: {self.reason}" if self.late else f"failed: {_last_line(self.reason)}"


def table(rows: Sequence[Row], faults: Sequence[Fault]) -> str:
    """For people: aligned columns, then a line for each part that has no number."""
    cells = [["section", "model", "what", "measured", "floor", "share", "target", ""]]
    for row in rows:
        cells.append(
            [
                row.section,
                row.model,
                row.what,
                _quantity(row.value, row.unit),
                _quantity(row.floor, row.unit),
                NOT_KNOWN if row.share is None else f"{row.share:.3g}",
                "" if row.target is None else str(row.target),
                row.verdict,
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    lines += [f"{fault.section} {fault.model}: {fault.said}" for fault in faults]
    return "\n".join(lines)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _quantity(value: float | None, unit: str) -> str:
    return NOT_KNOWN if value is None else f"{value:.4g} {unit}".rstrip()
