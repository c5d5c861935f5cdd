"""One Qwen-shaped folder for all tests of the room."""

from __future__ import annotations

import pytest

from epd.models.spec import Checkpoint
from epd.prompt import PromptBuilder
from tests.prompt.folders import write_folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_folder(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def builder(checkpoint: Checkpoint) -> PromptBuilder:
    return PromptBuilder(checkpoint)
