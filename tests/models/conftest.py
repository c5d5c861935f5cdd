"""A tiny checkpoint per family, its reference and both halves, shared by this folder's tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from epd.models.compiled.kernels import Kernels, load_kernels
from epd.models.language import LanguageModel, load_language
from epd.models.packed import can_pack
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.towers import Towers, load_towers
from tests.checkpoints import FAMILIES, build
from tests.models import stand_in
from tests.models.thinker import Thinker
from tests.models.whole import Whole
from tests.reference import Reference

torch.set_num_threads(1)  # several threads on cores that others use are slower, not faster


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def path_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny checkpoint of a family, built once."""
    return cache(lambda family: build(family, tmp_path_factory.mktemp("checkpoints") / "tiny"))


@pytest.fixture(scope="session")
def path(family: str, path_of: Callable[[str], Path]) -> Path:
    return path_of(family)


@pytest.fixture(scope="session")
def checkpoint(path: Path) -> Checkpoint:
    return read_checkpoint(path)


@pytest.fixture(scope="session")
def reference(path: Path) -> Reference:
    return _reference(path)


@pytest.fixture(scope="session")
def whole(path: Path) -> Whole:
    return _whole(path)


@pytest.fixture(scope="session")
def towers(checkpoint: Checkpoint) -> Towers:
    return _towers(checkpoint.path)


@pytest.fixture(scope="session")
def language(checkpoint: Checkpoint) -> LanguageModel:
    return _language(checkpoint.path)


@pytest.fixture(scope="session")
def thinker(path: Path, checkpoint: Checkpoint) -> Thinker:
    return _thinker(path, checkpoint.architecture)


# Kept: pytest makes a session's fixtures again whenever tests of another family had a turn.

_reference = cache(Reference)
_thinker = cache(Thinker)


@cache
def _whole(path: Path) -> Whole:
    return Whole(_reference(path))


@cache
def _towers(path: Path) -> Towers:
    checkpoint = read_checkpoint(path)
    modalities = checkpoint.spec.modalities
    return load_towers(checkpoint, modalities=modalities, device="cpu", dtype="float32")


@cache
def _language(path: Path) -> LanguageModel:
    with stand_in.attention():
        return load_language(read_checkpoint(path), device="cpu", dtype="float32")


@pytest.fixture(scope="session", name="cache")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled kernels are kept."""
    if not can_pack(nn.Linear(2, 2)):
        pytest.skip("this CPU decodes with other products")
    folder = tmp_path_factory.mktemp("compiled") / "kept"
    if load_kernels(folder) is None:
        pytest.skip("there is no compiler")
    return folder


@pytest.fixture(scope="session")
def kernels(cache: Path) -> Kernels:
    found = load_kernels(cache)
    assert found is not None
    return found
