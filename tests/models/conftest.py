"""A tiny checkpoint per family, its reference and both halves, shared by this folder's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epd.models.language import LanguageModel, load_language
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
def path(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(family, tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def checkpoint(path: Path) -> Checkpoint:
    return read_checkpoint(path)


@pytest.fixture(scope="session")
def reference(path: Path) -> Reference:
    return Reference(path)


@pytest.fixture(scope="session")
def whole(reference: Reference) -> Whole:
    return Whole(reference)


@pytest.fixture(scope="session")
def towers(checkpoint: Checkpoint) -> Towers:
    modalities = checkpoint.spec.modalities
    return load_towers(checkpoint, modalities=modalities, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def language(checkpoint: Checkpoint) -> LanguageModel:
    with stand_in.attention():
        return load_language(checkpoint, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def thinker(path: Path, checkpoint: Checkpoint) -> Thinker:
    return Thinker(path, checkpoint.architecture)
