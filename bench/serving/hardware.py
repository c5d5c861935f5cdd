"""What a result was measured on and with; a number without it says nothing."""

from __future__ import annotations

import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from epd import __version__
from epd.cli.environment import num_cores

LIBRARIES = ("torch", "transformers", "tokenizers", "pyzmq", "httpx", "uvicorn", "pillow")
FLAGS = re.compile(r"(sse4_2|f16c|fma|avx\w*|amx\w*)")
"""What matrix products use."""


def facts() -> dict[str, Any]:
    """Everything below, as the head of a result."""
    return {"hardware": hardware(), "versions": versions(), **commit()}


def hardware() -> dict[str, Any]:
    """Processor, memory and GPU."""
    info = _text("/proc/cpuinfo")
    flags = re.search(r"^flags\s*: (.*)$", info, re.M)
    model = re.search(r"^model name\s*: (.*)$", info, re.M)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", _text("/proc/meminfo"), re.M)
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": num_cores(),
        "flags": sorted(f for f in flags[1].split() if FLAGS.fullmatch(f)) if flags else [],
        "memory_gib": round(int(memory[1]) / (1 << 20), 1) if memory else None,
        "gpus": _said("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"),
        "system": platform.platform(),
    }


def versions() -> dict[str, Any]:
    """Of epd, Python and the libraries that matter."""
    found: dict[str, Any] = {"epd": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def commit() -> dict[str, Any]:
    """The checkout that this file lies in."""
    folder = str(Path(__file__).parent)
    heads = _said("git", "-C", folder, "rev-parse", "HEAD")
    changed = _said("git", "-C", folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": heads[0] if heads else None, "changed_files": len(changed)}


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _said(*command: str) -> list[str]:
    """The lines that a command prints; none where there is no such command or it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
