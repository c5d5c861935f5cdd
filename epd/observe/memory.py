"""What a process will need of memory against what there is: arithmetic, a table, a refusal.

Needs are upper bounds that settings allow, so what fits here does not run out of memory later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from epd.errors import ConfigError

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_MOST_NAMED = 3


class Where(StrEnum):
    """Which memory. Shared memory is host memory too."""

    HOST = "host memory"
    SHARED = "shared memory"
    DEVICE = "device memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes for one purpose, and the settings that lower them (none: nothing does)."""

    name: str
    num_bytes: int
    where: Where = Where.HOST
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Bytes that a new process can have. `device`: of the GPU, None without one."""

    host: int
    shared: int
    device: int | None = None

    def available(self, where: Where) -> int:
        """Bytes of one kind."""
        if where is Where.DEVICE:
            return self.device or 0
        return self.shared if where is Where.SHARED else self.host


def total(needs: Sequence[Need], where: Where) -> int:
    """Bytes of one kind of memory."""
    return sum(need.num_bytes for need in _inside(needs, where))


def table(needs: Sequence[Need], machine: Machine) -> str:
    """One line: totals against what is available, then every need, the largest first."""
    totals = [
        f"{size(total(needs, where))} of {size(machine.available(where))} available {where}"
        for where in Where
        if total(needs, where)
    ]
    return f"memory: total {', '.join(totals)}: {parts(needs)}"


def parts(needs: Sequence[Need]) -> str:
    """Every need, the largest first."""
    return ", ".join(f"{need.name} {size(need.num_bytes)}" for need in _largest(needs))


def together(workers: Sequence[Sequence[Need]]) -> list[Need]:
    """The needs of several processes, those for the same purpose as one."""
    alike: dict[tuple[str, Where], list[Need]] = {}
    for need in (need for needs in workers for need in needs):
        alike.setdefault((need.name, need.where), []).append(need)
    return [
        replace(
            same[0],
            name=f"{name} in {len(same)} processes" if len(same) > 1 else name,
            num_bytes=sum(need.num_bytes for need in same),
        )
        for (name, _), same in alike.items()
    ]


def check_fits(needs: Sequence[Need], machine: Machine, who: str) -> None:
    """ConfigError if any kind of memory is too small: the largest needs and what lowers them."""
    for where in Where:
        wanted, available = total(needs, where), machine.available(where)
        if wanted > available:
            largest = [_with_settings(need) for need in _largest(_inside(needs, where))]
            raise ConfigError(
                f"{who} would need {size(wanted)} of {where}, {size(available)} is available; "
                f"the largest parts: {'; '.join(largest[:_MOST_NAMED])}"
            )


def size(num_bytes: int) -> str:
    """As people read it: 3.1 GiB."""
    value = num_bytes / 1024
    for unit in _UNITS[:-1]:
        if value < 1000:
            return f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def _inside(needs: Sequence[Need], where: Where) -> list[Need]:
    return [
        need
        for need in needs
        if need.where is where or (where is Where.HOST and need.where is Where.SHARED)
    ]


def _largest(needs: Sequence[Need]) -> list[Need]:
    return sorted((n for n in needs if n.num_bytes), key=lambda n: n.num_bytes, reverse=True)


def _with_settings(need: Need) -> str:
    lowered = f" (lower {' or '.join(need.settings)})" if need.settings else ""
    return f"{need.name} {size(need.num_bytes)}{lowered}"
