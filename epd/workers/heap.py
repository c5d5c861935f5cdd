"""How the C library of a process treats memory that is freed, and Python objects that are not."""

from __future__ import annotations

import atexit
import ctypes
import gc
from typing import Final

from epd.config.section import MIB

# From malloc.h: what mallopt() sets.
TRIM_THRESHOLD: Final = -1
MMAP_THRESHOLD: Final = -3
ARENA_MAX: Final = -8

LARGE_BYTES: Final = 64 * MIB
"""Blocks of this size come from the system each time, and go back to it."""

KEPT_BYTES: Final = 256 * MIB
"""So much may lie free at the heap's end."""


COLLECT_AFTER: Final = 20_000
"""New objects. Python's own number, 700, is that of one request or two."""


def freeze_objects() -> None:
    """What there is when a process is ready lives as long as it: a quarter of a million objects of
    libraries, which collections of garbage need not look at again and again. At the end they do.
    """
    atexit.register(gc.unfreeze)
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def keep_freed_memory() -> None:
    """For the next tensor, instead of giving it back and faulting it in again page by page.

    That costs more than to copy rows into it (bench/transfer). One heap for all threads: those of
    their own end every 64 MiB, and each such part goes back as soon as it is free, whatever is said
    here, which took a third of the rate of rows that come over a socket. Nothing where the library
    has no mallopt().
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(ARENA_MAX, 1)
