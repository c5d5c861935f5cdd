"""The runtime folder of one `epd serve`: sockets and configurations, 0700, removed at exit.

A folder whose owner was killed is removed by the next start: its lock is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "epd-"
LOCK = "lock"
# Younger ones may be between being made and being locked.
STALE_AFTER_S = 60.0


@contextlib.contextmanager
def runtime_folder(base: Path) -> Iterator[Path]:
    """A new folder under `base`, there until the block ends."""
    remove_stale(base, now=time.time())
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


def remove_stale(base: Path, *, now: float) -> list[Path]:
    """Remove runtime folders of ours that no living process holds; those removed."""
    stale = [folder for folder in base.glob(PREFIX + "*") if _is_stale(folder, now)]
    for folder in stale:
        shutil.rmtree(folder, ignore_errors=True)
    return stale


def _is_stale(folder: Path, now: float) -> bool:
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        if now - found.st_mtime < STALE_AFTER_S:
            return False
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # gone meanwhile, or not a runtime folder
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
