"""The embedded model through HTTP says what generate() says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch

from demo.evaluate import Judge
from demo.tasks import MAIN, Prompt
from epd.cli.default_model import CACHES, FOLDER
from tests.cluster.cases import Client
from tests.cluster.given import Given, Request, plain, watched
from tests.cluster.running import Cluster, image_part
from tests.corpus.entry import base64_text, data_url, url_part
from tests.corpus.making import film, sound
from tests.reference import Reference

KEYS = (
    "describe",
    "where",
    "is",
    "direction",
    "event",
    "beeps",
    "pitch",
    "compare",
    "both",
    "talk",
)
MOST_TOKENS = 64
EACH = 8
"""Prompts of each task."""


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(FOLDER)


@contextmanager
def served(*settings: str) -> Iterator[Client]:
    small = [
        f"{part}.{key}={value}" for part, keys in CACHES.items() for key, value in keys.items()
    ]
    cluster = Cluster(FOLDER, "1E1P1D", *small, "media.image.max_pixels=4000000", *settings)
    client = Client(cluster)
    yield client
    client.close()
    assert cluster.stop() == 0


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with served() as client:
        yield client


def given(kind: str, data: Any) -> Given:
    """What a client sends of it, every pixel and sample, but for the clip, which is a film."""
    if kind == "image":
        return plain("image", image_part(data), lambda _: data)
    if kind == "video":
        height, width = (side // 2 * 2 for side in data.shape[1:3])  # as the codec wants
        file = film(data[:, :height, :width], fps=4)
        part = url_part("video", data_url(file, "video/mp4"))
        return plain("video", part, partial(watched, file, False, None, None))
    sent = {"data": base64_text(sound(data, subtype="FLOAT")), "format": "wav"}
    return plain("audio", {"type": "input_audio", "input_audio": sent}, lambda _: data)


def request_of(prompt: Prompt) -> Request:
    return Request((*(given(kind, data) for kind, data in prompt.media), prompt.question))


def test_through_the_cluster_it_says_what_generate_says(
    client: Client, reference: Reference
) -> None:
    right = []
    for task in MAIN:
        if task.key not in KEYS:
            continue
        [prompt] = task.prompts(1)
        request = request_of(prompt)
        _, expected = reference.generate(request.messages(), request.items(reference), MOST_TOKENS)
        answer = client.ask(request.sent(reference), max_tokens=MOST_TOKENS)
        assert answer.token_ids == expected, task.name
        right.append(answer.text == prompt.answer)
    assert len(right) >= len(KEYS) and any(right)


@pytest.mark.slow
def test_in_bfloat16_it_is_right_as_often_as_generate(reference: Reference) -> None:
    """Within one answer in a hundred: rounding turns a few, in either direction."""
    judge = Judge(FOLDER, torch.bfloat16)
    prompts = [prompt for task in MAIN for prompt in task.prompts(EACH)]
    alone = sum(judge.answer(prompt) == prompt.answer for prompt in prompts)
    served_right = 0
    with served("dtype=bfloat16") as client:
        for prompt in prompts:
            sent = request_of(prompt).sent(reference)
            served_right += client.ask(sent, max_tokens=MOST_TOKENS).text == prompt.answer
    assert abs(served_right - alone) <= 0.01 * len(prompts)
