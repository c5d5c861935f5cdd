"""The card as its driver names it. Touches no GPU."""

from __future__ import annotations

import subprocess
from typing import Any


def card_facts() -> dict[str, Any]:
    """The card by name, with its driver; read without touching it."""
    query = "name,driver_version,memory.total,power.limit,clocks.max.sm"
    command = ("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    try:
        said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return {}
    first = said.stdout.strip().splitlines()[:1] if said.returncode == 0 else []
    return dict(zip(query.split(","), first[0].split(", "), strict=False)) if first else {}
