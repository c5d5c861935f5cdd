"""How much memory this process may still have, and what the processor can multiply.

Linux's own files; what a machine does not say limits nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
SHARED = Path("/dev/shm")


def available_host(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Bytes that can be allocated before the kernel or a control group's limit ends a process."""
    (free,) = _kib(proc / "meminfo", "MemAvailable") or (1 << 62,)
    return max(0, min([free, *_cgroup_rooms(proc / "self" / "cgroup", cgroups)]))


def available_shared(folder: Path = SHARED) -> int:
    """Bytes that new files there can have."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def held_host(proc: Path = PROC) -> int:
    """Bytes of this process that no file backs."""
    return sum(_kib(proc / "self" / "status", "RssAnon"))


def widens_bfloat16(proc: Path = PROC) -> bool:
    """Is this an x86 processor that multiplies bfloat16 only after widening it to float32?"""
    flags = set(re.findall(r"\w+", _text(proc / "cpuinfo") or ""))
    return "avx2" in flags and not flags & {"avx512_bf16", "amx_bf16"}


def compiles(proc: Path = PROC) -> bool:
    """Is this a processor that layers are compiled for, see epd.models.compiled.build?"""
    return "avx512f" in set(re.findall(r"\w+", _text(proc / "cpuinfo") or ""))


def compiles_many_rows(proc: Path = PROC) -> bool:
    """Also for many rows: it multiplies bfloat16, and has no matrix unit that oneDNN would use."""
    flags = set(re.findall(r"\w+", _text(proc / "cpuinfo") or ""))
    return "avx512_bf16" in flags and "amx_tile" not in flags


def _kib(file: Path, field: str) -> tuple[int, ...]:
    """The field's values in bytes."""
    text = _text(file) or ""
    return tuple(int(kib) << 10 for kib in re.findall(rf"^{field}:\s+(\d+) kB$", text, re.M))


def _cgroup_rooms(memberships: Path, cgroups: Path) -> Iterator[int]:
    """What is left of each limit above this process, in version 1 or 2."""
    for line in (_text(memberships) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            files = ("memory.max", "memory.current", "inactive_file")
            yield from _rooms(cgroups, path, *files)
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _rooms(cgroups / "memory", path, *files)


def _rooms(top: Path, path: str, limit: str, usage: str, cached: str) -> Iterator[int]:
    """Of the group and of all those it lies in. Inside a container `top` is its own group."""
    own = top / path.lstrip("/")
    for folder in (own, *own.parents):
        if not folder.is_relative_to(top):
            return
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None:
            found = re.search(rf"^{cached} (\d+)$", _text(folder / "memory.stat") or "", re.M)
            yield most - used + (int(found[1]) if found else 0)


def _number(file: Path) -> int | None:
    """None for `max` and where there is no such file."""
    text = (_text(file) or "").strip()
    return int(text) if text.isdigit() else None


def _text(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None
