"""The checkpoints that benchmarks run on: a folder of yours, or a random one, built once."""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

from epd.cli.default_model import build_once
from epd.cli.environment import cache_folder
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
