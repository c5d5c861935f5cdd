"""The embedded default: a small checkpoint with random weights, built once and kept.

Its answers are gibberish, and we say so. It takes the way of every other checkpoint from there on.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from epd import __version__
from epd.cli import environment
from epd.config import Config, Section
from epd.errors import InternalError

log = logging.getLogger("epd.serve")

NAME = "epd-random"

MIB = 1 << 20
CACHES = {
    "gateway": {"media_budget_bytes": 256 * MIB, "responses_bytes": 64 * MIB},
    "encode": {"rows_bytes": 64 * MIB, "prepared_bytes": 64 * MIB},
    "language": {"kv_bytes": 64 * MIB, "host_bytes": 64 * MIB},
}
"""Enough for so small a model, so that it runs on a small machine; what is set stays as set."""

# In a process of its own: the supervisor stays small and imports no torch.
BUILD = """\
import sys
from epd.models.random_checkpoint import build_random_checkpoint
build_random_checkpoint(sys.argv[1])
"""


def path(command: tuple[str, ...] = (sys.executable, "-c", BUILD)) -> Path:
    """The checkpoint's folder, after building it if this version has not yet."""
    folder = environment.cache_folder() / f"random-{__version__}"
    log.info("no MODEL given: serving a small model with random weights; its answers are gibberish")
    build_once(folder, lambda to: [*command, str(to)])
    return folder


def with_small_caches(config: Config) -> Config:
    """The configuration with CACHES for its defaults."""
    update = {}
    for name, values in CACHES.items():
        section: Section = getattr(config, name)
        unset = {key: value for key, value in values.items() if key not in section.model_fields_set}
        update[name] = section.model_copy(update=unset)
    return config.model_copy(update=update)


def build_once(folder: Path, command: Callable[[Path], Sequence[str]]) -> None:
    """Have a checkpoint built in `folder` unless it is there.

    It is built beside it and renamed, so that a half-built one is never taken for whole.
    """
    if (folder / "config.json").is_file():
        return
    log.info("building it once in %s", folder)
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
