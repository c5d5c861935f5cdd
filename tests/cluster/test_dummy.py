"""A cluster without weights answers, and its workers have the same ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.running import Cluster, image_part, picture


@pytest.fixture(scope="module")
def bare(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's folder without its weights."""
    folder = tmp_path_factory.mktemp("bare") / "tiny"
    shutil.copytree(path, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    return folder


def answers(cluster: Cluster) -> list[str]:
    found: list[str] = []
    contents: list[Any] = [
        "hello",
        [image_part(picture(84, 56)), {"type": "text", "text": "what?"}],
    ]
    for content in contents:
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 8,
            "temperature": 0,
            "ignore_eos": True,
        }
        answer = httpx.post(f"{cluster.url}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["choices"][0]["message"]["content"])
    return found


@pytest.mark.slow
def test_stages_apart_and_together_answer_alike(bare: Path) -> None:
    said: list[list[str]] = []
    for topology in ("1E1P1D", "EPD"):
        cluster = Cluster(bare, topology, flags=["--load-format", "dummy"])
        try:
            said.append(answers(cluster))
        finally:
            assert cluster.stop() == 0
    assert said[0] == said[1] and len(set(said[0])) == 2
