"""One tiny model, what Hugging Face says with it, and the offline engine that must say the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import epd
from tests.checkpoints import build
from tests.reference import Reference

torch.set_num_threads(1)  # the cluster needs the cores


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen2_5_vl", tmp_path_factory.mktemp("llm") / "tiny")


@pytest.fixture(scope="session")
def reference(model: Path) -> Reference:
    return Reference(model)


@pytest.fixture(scope="session")
def llm(model: Path) -> Iterator[epd.LLM]:
    """As a user makes one; stopped in order."""
    made = epd.LLM(
        model=model,
        limit_mm_per_prompt={"image": 3},
        max_model_len=4096,
        dtype="float32",
        settings={"language.kv_tokens": 16384},
    )
    with made:
        yield made
    assert made.server.stop() == 0
