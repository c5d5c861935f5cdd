"""A file that is longer than the model's window, over a real cluster with the stock client."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from epd.gateway.transcriptions.reading import PROMPT, window_of
from tests.cluster.running import Cluster

RATE = 16_000
MOST_TOKENS = 12


@pytest.fixture(scope="module")
def folder(path_of: Callable[[str], Path]) -> Path:
    return path_of("qwen2_audio")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(folder, "EPD")
    yield cluster
    assert cluster.stop() == 0


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def said_of(cluster: Cluster, samples: np.ndarray) -> str:
    """What a chat about this part alone says."""
    audio = {"data": base64.b64encode(wav(samples)).decode(), "format": "wav"}
    content = [{"type": "input_audio", "input_audio": audio}, {"type": "text", "text": PROMPT}]
    messages = [{"role": "user", "content": content}]
    body = {"model": cluster.model, "messages": messages, "max_tokens": MOST_TOKENS}
    found: str = cluster.post({**body, "temperature": 0}).json()["choices"][0]["message"]["content"]
    return found.strip()


@pytest.mark.slow
def test_a_long_file_says_what_its_windows_say(cluster: Cluster, folder: Path) -> None:
    window = int(window_of(folder) * RATE)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, window * 5 // 2).astype(np.float32)
    found = cluster.client().audio.transcriptions.create(
        file=("a.wav", wav(samples)),
        model=cluster.model,
        extra_body={"max_completion_tokens": MOST_TOKENS},
    )
    parts = [samples[start : start + window] for start in range(0, len(samples), window)]
    assert len(parts) == 3
    assert found.text == " ".join(filter(None, (said_of(cluster, part) for part in parts)))
