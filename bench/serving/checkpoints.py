"""The checkpoints that benchmarks run on: a folder of yours, or a random one, built once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from epd.cli.environment import cache_folder
from epd.errors import InternalError
from epd.models.random_checkpoint import SIZES


def folder_of(model: str, family: str) -> Path:
    """`model` is a folder or a name in SIZES; random ones are kept in the user's cache."""
    if model not in SIZES:
        return Path(model)
    made_of = f"{SIZES[model]} {version('transformers')}"
    key = hashlib.sha256(made_of.encode()).hexdigest()[:8]
    folder = cache_folder() / "bench" / f"{family}-{model}-{key}"
    options = ("--family", family, "--size", model)
    build_once(folder, lambda to: [*_BUILD, str(to), *options])
    return folder


# In a process of its own: the load generator stays small and imports no torch.
_BUILD = (sys.executable, "-m", "epd.models.random_checkpoint")


def build_once(folder: Path, command: Callable[[Path], Sequence[str]]) -> None:
    """Have a checkpoint built in `folder` unless it is there.

    It is built beside it and renamed, so that a half-built one is never taken for whole.
    """
    if (folder / "config.json").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder.parent) as work:
        built = Path(work) / folder.name
        done = subprocess.run(
            command(built), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise InternalError(f"building a checkpoint failed:\n{done.stderr.strip()}")
        try:
            built.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():  # else another start was first
                raise
