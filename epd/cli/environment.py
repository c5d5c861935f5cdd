"""All that epd reads from the environment and the machine it runs on."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# An ipc:// path has 107 bytes; "/epd-12345678/prefill-999.c" must fit behind the base.
LONGEST_RUNTIME_BASE = 70

# Turns of OpenMP's waiting loop before a thread sleeps: some ten microseconds.
SPINS = "5000"


def num_cores() -> int:
    """Cores this process may use (not those of the machine, in a container)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_folder() -> Path:
    """Where things built once are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "epd"


def openai_api_key() -> str | None:
    """What clients of OpenAI's API show."""
    return os.environ.get("OPENAI_API_KEY")


def runtime_base() -> Path:
    """A private or sticky folder with a short path, for sockets."""
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()):
        if base and len(os.fsencode(base)) <= LONGEST_RUNTIME_BASE and os.access(base, os.W_OK):
            return Path(base)
    return Path("/tmp")


def worker_environment(threads: int) -> dict[str, str]:
    """What workers that compute with `threads` threads each need in theirs.

    OpenMP reads its variables when torch is loaded, before any setting of torch's own. By default
    its threads spin for milliseconds, and on a machine where workers, intake threads and clients
    share the cores they then keep those they wait for from running. Those that sleep at once make
    a decode step 6 % slower (bench/step.py); a short spin covers the gaps between products.
    """
    spins = os.environ.get("GOMP_SPINCOUNT", SPINS)
    return {"GOMP_SPINCOUNT": spins, "OMP_NUM_THREADS": str(threads)}
