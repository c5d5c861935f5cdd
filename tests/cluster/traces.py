"""What a cluster has on the machine while it runs, to be looked for when it is gone."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def runtime_base() -> Iterator[Path]:
    """A folder for runtime folders alone, with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="epd-test-", dir="/tmp") as folder:
        yield Path(folder)


def children_of(pid: int) -> list[psutil.Process]:
    """All processes below this one; none if it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def segments_of(processes: list[psutil.Process]) -> set[Path]:
    """Shared-memory segments that these processes made: readers open them only to read."""
    found = set()
    for process in processes:
        for file in process.open_files():
            path = Path(file.path)
            if path.parent == SHARED_MEMORY and file.mode != "r":
                found.add(path)
    return found


def dead_segments() -> set[Path]:
    """Segments of ours that no living process holds: owners lock what they make."""
    found = set()
    for path in SHARED_MEMORY.glob("epd-*"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):  # somebody's, or gone meanwhile
            continue
        found.add(path)
    return found


@dataclass(frozen=True, slots=True)
class Traces:
    """Taken while the cluster runs. `base` is where its runtime folder lies."""

    processes: tuple[psutil.Process, ...]
    segments: frozenset[Path]
    base: Path

    @classmethod
    def of(cls, pid: int, base: Path) -> Traces:
        processes = [psutil.Process(pid), *children_of(pid)]
        segments = segments_of(processes)
        assert list(base.iterdir()), "no runtime folder to look for"
        return cls(tuple(processes), frozenset(segments), base)

    def living(self) -> list[str]:
        """Processes that still run."""
        return [str(p) for p in self.processes if p.is_running() and p.status() != "zombie"]

    def left(self) -> list[str]:
        """Everything that is still there."""
        files = [path for path in self.segments if path.exists()]
        return [*self.living(), *map(str, [*files, *self.base.rglob("*")])]
