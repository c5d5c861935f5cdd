"""The other APIs over a real cluster: they say what a chat completion says, with stock clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.cluster.running import Cluster, data_url, picture

TEXT = "What is it?"


@pytest.fixture
def cluster(cluster_of: Callable[[str], Cluster]) -> Cluster:
    return cluster_of("1E1P1D")


def url() -> str:
    return data_url(picture(140, 112), "PNG")


def question() -> list[dict[str, Any]]:
    shown = {"type": "image_url", "image_url": {"url": url()}}
    return [{"role": "user", "content": [shown, {"type": "text", "text": TEXT}]}]


def chat(cluster: Cluster, messages: list[dict[str, Any]]) -> str:
    body = {"model": cluster.model, "messages": messages, "max_tokens": 12, "temperature": 0}
    found: str = cluster.post(body).json()["choices"][0]["message"]["content"]
    return found


def test_a_response_says_what_a_chat_says_and_is_gone_on_with(cluster: Cluster) -> None:
    """Also streamed, and in the next turn with all that was said before."""
    said = [
        {"type": "input_image", "image_url": url(), "detail": "auto"},
        {"type": "input_text", "text": TEXT},
    ]
    ask: dict[str, Any] = {"model": cluster.model, "max_output_tokens": 12, "temperature": 0}
    inputs: Any = [{"type": "message", "role": "user", "content": said}]
    client = cluster.client()
    one = client.responses.create(input=inputs, **ask)
    streamed = list(client.responses.create(input=inputs, stream=True, **ask))
    two = client.responses.create(input="And now?", previous_response_id=one.id, **ask)
    first = chat(cluster, question())
    assert one.output_text == first and one.usage is not None and one.usage.output_tokens > 0
    deltas = [event.delta for event in streamed if event.type == "response.output_text.delta"]
    assert "".join(deltas) == first
    assert streamed[-1].type in ("response.completed", "response.incomplete")
    history = [*question(), {"role": "assistant", "content": first}]
    assert two.output_text == chat(cluster, [*history, {"role": "user", "content": "And now?"}])
    assert client.responses.retrieve(one.id).output_text == first


def test_a_completion_of_the_chats_own_tokens_says_the_same(cluster: Cluster) -> None:
    """With the picture as an item, and with another prompt beside one without."""
    asked = {"model": cluster.model, "messages": question()}
    tokens = httpx.post(f"{cluster.url}/tokenize", json=asked, timeout=60).json()["tokens"]
    items = [question()[0]["content"][0]]
    ask: dict[str, Any] = {"model": cluster.model, "max_tokens": 12, "temperature": 0}
    client = cluster.client()
    one = client.completions.create(prompt=tokens, extra_body={"items": items}, **ask)
    assert one.choices[0].text == chat(cluster, question())
    plain = [{"role": "user", "content": text} for text in ("Hello", "Go on.")]
    prompts = [
        httpx.post(f"{cluster.url}/tokenize", json={"messages": [turn]}, timeout=60).json()
        for turn in plain
    ]
    both = client.completions.create(prompt=[one["tokens"] for one in prompts], **ask)
    texts = [choice.text for choice in sorted(both.choices, key=lambda choice: choice.index)]
    assert texts == [chat(cluster, [turn]) for turn in plain]
