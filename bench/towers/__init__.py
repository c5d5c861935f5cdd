"""Checkpoints whose tower is a delay: a random one of Qwen2.5-VL, and a family from outside."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.serving.checkpoints import folder_of

PLUGIN = Path(__file__).parent / "plugin"
FAMILY = "qwen2_5_vl"


@contextmanager
def delayed(model: str, seconds_per_item: float) -> Iterator[Path]:
    """The folder of `model`, random or a Qwen2.5-VL of yours, with such a tower.

    This process, and those that it starts, know the family.
    """
    base = folder_of(model, FAMILY)
    _install()
    with TemporaryDirectory(prefix="epd-bench-") as made:
        folder = Path(made) / base.name
        folder.mkdir()
        for file in base.iterdir():
            (folder / file.name).symlink_to(file.resolve())
        config = json.loads((base / "config.json").read_text())
        config["architectures"] = ["DelayedTowerForConditionalGeneration"]
        config["tower_s_per_item"] = seconds_per_item
        (folder / "config.json").unlink()
        (folder / "config.json").write_text(json.dumps(config))
        yield folder


def _install() -> None:
    """As `pip install` would have done."""
    from epd.models.families import families

    if str(PLUGIN) not in sys.path:
        sys.path.append(str(PLUGIN))
        families.cache_clear()
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if str(PLUGIN) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([*paths, str(PLUGIN)])
