"""The main job: a JPEG sent with the stock client is answered, streaming and not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.running import Cluster, data_url, picture

TOPOLOGIES = ("EPD", "1E1PD", "1E1P1D")


def question() -> list[dict[str, Any]]:
    url = data_url(picture(140, 112), "JPEG")
    text = {"type": "text", "text": "What is it?"}
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, text]}]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_jpeg_is_answered_streaming_and_not(
    cluster_of: Callable[[str], Cluster], topology: str
) -> None:
    cluster = cluster_of(topology)
    ask: dict[str, Any] = {"model": cluster.model, "messages": question(), "max_tokens": 24}
    client = cluster.client()
    before = cluster.metrics()

    whole = client.chat.completions.create(temperature=0, **ask)
    chunks = list(
        client.chat.completions.create(
            temperature=0, stream=True, stream_options={"include_usage": True}, **ask
        )
    )

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert whole.usage is not None and whole.usage.completion_tokens > 0
    again = chunks[-1].usage
    assert again is not None and again.total_tokens == whole.usage.total_tokens
    assert again.completion_tokens == whole.usage.completion_tokens

    counted = cluster.metrics()
    tokens = 2 * whole.usage.prompt_tokens
    for name, more in (("prompt_tokens_total", tokens), ('items_total{modality="image"}', 2)):
        assert counted[f"epd_{name}"] - before.get(f"epd_{name}", 0) == more
