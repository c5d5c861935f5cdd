"""Encode workers that serve some modalities only: items go to those that do, or it is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.given import Given, Request, audio, image, video
from tests.cluster.roles import role, started
from tests.cluster.running import START_S, eventually
from tests.reference import Reference

MAX_TOKENS = 12
FAMILY = "qwen2_5_omni"


@dataclass
class Site:
    """A gateway with one worker for sounds and one for pictures; the latter can be stopped."""

    url: str
    model: str
    reference: Reference
    pictures: AbstractContextManager[Any]

    def ask(self, *content: str | Given) -> httpx.Response:
        body = {
            "model": self.model,
            "messages": Request(content).sent(self.reference),
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "return_token_ids": True,
        }
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)

    def check(self, *content: str | Given) -> None:
        """The answer is Hugging Face's."""
        request = Request(content)
        prompt, new = self.reference.generate(
            request.messages(), request.items(self.reference), MAX_TOKENS
        )
        answer = self.ask(*content).json()
        assert answer["usage"]["prompt_tokens"] == len(prompt)
        assert answer["choices"][0]["token_ids"] == new


@pytest.fixture(scope="module")
def site(path_of: Callable[[str], Path]) -> Iterator[Site]:
    path = path_of(FAMILY)
    small = ("language.kv_tokens=4096",)
    with ExitStack() as stack:
        gateway = stack.enter_context(role("gateway", path, *small, "gateway.port=0"))
        to = f"gateways=[{gateway['control']}]"
        for name in ("prefill", "decode"):
            stack.enter_context(started(name, path, *small, to))
        hears = ("name=encode-audio", "encode.modalities=[audio]")
        stack.enter_context(started("encode", path, to, *hears))
        sees = ("name=encode-image", "encode.modalities=[image]")
        pictures = started("encode", path, to, *sees)
        pictures.__enter__()
        url = gateway["url"]
        eventually(
            lambda: httpx.get(f"{url}/ready", timeout=60).status_code == 200, "every stage", START_S
        )
        site = Site(url, path.name, Reference(path), pictures)
        for one in (audio(), image()):  # ready says that some encoder is there, not which
            eventually(lambda one=one: site.ask(one).status_code == 200, "both encoders", START_S)  # type: ignore[misc]
        yield site


def check_unavailable(response: httpx.Response, *words: str) -> None:
    assert response.status_code == 503, response.text
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "unavailable")
    assert all(word in error["message"] for word in words), error["message"]


def test_sounds_and_pictures_are_each_encoded_where_they_can_be(site: Site) -> None:
    site.check("Hear ", audio(1.1, 1))
    site.check("See ", image(1))
    site.check("Both: ", audio(0.7, 2), "and", image(2), audio(0.5, 3))


def test_a_modality_that_nobody_serves_is_named(site: Site) -> None:
    check_unavailable(site.ask("Watch ", video(1)), "video")
    check_unavailable(site.ask(image(3), video(1), audio(0.5, 1)), "video")
    check_unavailable(site.ask(video(2, sounding=True, listen=True)), "video", "audio")


def test_when_the_worker_for_pictures_leaves_sounds_are_still_answered(site: Site) -> None:
    """The last one that needs it: it does not come back."""
    site.pictures.__exit__(None, None, None)
    eventually(lambda: site.ask(image(4)).status_code == 503, "its absence is known")
    check_unavailable(site.ask("See ", image(5)), "image")
    site.check("Hear ", audio(0.9, 4))
