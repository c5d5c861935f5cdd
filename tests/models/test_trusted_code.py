"""Code that lies in a checkpoint's folder runs only where the operator trusts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers.dynamic_module_utils

from epd.models.spec import read_checkpoint
from epd.types import Modality
from tests.checkpoints import build

CODE = """\
from transformers import LlavaProcessor


class OwnProcessor(LlavaProcessor):
    pass
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with a processor of its own. What is loaded is copied to the test's folder."""
    monkeypatch.setattr(
        transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = build("llava", tmp_path / "trusted")
    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    content["auto_map"] = {"AutoProcessor": "own_processor.OwnProcessor"}
    file.write_text(json.dumps(content))
    (folder / "own_processor.py").write_text(CODE)
    return folder


@pytest.mark.parametrize(("trusts", "name"), [(False, "LlavaProcessor"), (True, "OwnProcessor")])
def test_a_processor_of_the_checkpoints_own_needs_trust(
    path: Path, trusts: bool, name: str
) -> None:
    adapter = read_checkpoint(path, trust_remote_code=trusts).adapter()
    processor = adapter.load_processors([Modality.IMAGE])[Modality.IMAGE]
    assert type(processor).__name__ == name
