"""Equal fingerprints mean equal checkpoints, for a few milliseconds of reading."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from epd.errors import ConfigError
from epd.models.fingerprint import stored_dtype
from epd.models.spec import read_checkpoint


@pytest.fixture
def copy(path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(path, tmp_path / "another-name"))


def differing(path: Path, copy: Path) -> set[str]:
    one, other = read_checkpoint(path).fingerprint(), read_checkpoint(copy).fingerprint()
    assert one.keys() == other.keys()
    return {part for part in one if one[part] != other[part]}


def test_a_copy_under_another_name_is_the_same(path: Path, copy: Path) -> None:
    assert differing(path, copy) == set()


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("config.json", "config"),
        ("processor_config.json", "processor"),
        ("tokenizer.json", "tokenizer"),
    ],
)
def test_a_changed_file_changes_its_part_only(file: str, part: str, path: Path, copy: Path) -> None:
    (copy / file).write_text((copy / file).read_text() + "\n")
    assert differing(path, copy) == {part}


def test_other_weights_of_equal_shapes_are_told_apart(path: Path, copy: Path) -> None:
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    for i in range(len(content) // 2, len(content)):  # a fine-tune moves nearly every weight
        content[i] ^= 1
    weights.write_bytes(content)
    assert differing(path, copy) == {"weights"}


def test_stored_dtype_is_in_the_header(path: Path) -> None:
    assert stored_dtype(path) == "float32"


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{"])
def test_what_is_no_safetensors_file_is_said(content: bytes, copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="is no safetensors file"):
        read_checkpoint(copy).fingerprint()


def test_a_checkpoint_without_safetensors_is_refused(copy: Path) -> None:
    """Pickled weights are never opened."""
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="no weights in safetensors"):
        read_checkpoint(copy).fingerprint()
