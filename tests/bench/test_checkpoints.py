"""A checkpoint that a benchmark runs on is built once, whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.serving.checkpoints import build_once
from epd.errors import InternalError

BUILD = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'config.json').touch()"


def test_it_is_built_once(tmp_path: Path) -> None:
    folder = tmp_path / "kept" / "one"
    build_once(folder, lambda to: [sys.executable, "-c", BUILD, str(to)])
    assert (folder / "config.json").is_file()
    build_once(folder, lambda to: [sys.executable, "-c", "raise SystemExit('built again')"])
    assert list(folder.parent.iterdir()) == [folder]


def test_one_that_cannot_be_built_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "kept" / "one"
    with pytest.raises(InternalError, match="no torch here"):
        build_once(folder, lambda to: [sys.executable, "-c", "raise SystemExit('no torch here')"])
    assert list(folder.parent.iterdir()) == []
