"""Load tools that are not installed here: their very requests, and their way of reading answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.readers import OF_CHATS, READERS, Read
from tests.clients.recorded import MODEL, NUM_TOKENS, RECORDED, Recorded
from tests.cluster.running import Cluster, data_url, picture

PICTURE = data_url(picture(140, 112), "JPEG")
OF_TOOL = {recorded.tool: recorded for recorded in RECORDED}


@pytest.fixture(scope="module")
def cluster(checkpoint: Path) -> Iterator[Cluster]:
    """Whole in one engine process: what a tool sends is the gateway's business."""
    cluster = Cluster(checkpoint, "EPD")
    yield cluster
    cluster.wait_until_idle()
    assert cluster.stop() == 0


def _send(cluster: Cluster, recorded: Recorded, **changes: Any) -> httpx.Response:
    body = {**recorded.filled(cluster.model, PICTURE), "temperature": 0, **changes}
    url = f"{cluster.url}{recorded.path}"
    return httpx.post(url, json=body, headers=dict(recorded.headers), timeout=60)


@pytest.mark.parametrize("tool", OF_TOOL)
def test_it_reads_the_answer_that_is_given(cluster: Cluster, tool: str) -> None:
    recorded = OF_TOOL[tool]
    answer = _send(cluster, recorded)
    assert answer.status_code == 200, answer.text

    given = READERS["whole"](_send(cluster, recorded, stream=False, stream_options=None).text)
    assert given.completion_tokens == NUM_TOKENS
    read = READERS[recorded.reader](answer.text)
    assert read in (given, replace(given, prompt_tokens=None, completion_tokens=None))
    assert read == given or recorded.reader.startswith("sglang")


def test_a_field_that_is_not_known_would_be_noticed(cluster: Cluster) -> None:
    """The negative control: these tests are not passed by ignoring what tools send."""
    assert _send(cluster, RECORDED[0], best_off=1).status_code == 400


@pytest.mark.parametrize("reader", [reader.__name__ for reader in OF_CHATS])
def test_a_stream_without_usage_is_not_read_as_one_with(cluster: Cluster, reader: str) -> None:
    """The negative control for readers: they do not guess."""
    answer = _send(cluster, RECORDED[0], stream_options=None).text
    if reader in ("guidellm", "evalscope"):
        with pytest.raises((AssertionError, KeyError)):
            READERS[reader](answer)
    else:
        assert READERS[reader](answer) == Read(READERS["sglang"](answer).text, None, None)


def test_the_questions_before_a_run_are_answered(cluster: Cluster) -> None:
    """vllm takes a model's name and root from the list, GuideLLM asks for health first, sglang
    waits for the list and lives without /server_info."""
    cards = httpx.get(f"{cluster.url}/v1/models").json()["data"]
    assert (cards[0]["id"], cards[0]["root"]) == (cluster.model, cluster.model)
    assert httpx.get(f"{cluster.url}/health").status_code == 200
    assert httpx.get(f"{cluster.url}/server_info").status_code == 404
    assert MODEL not in str(RECORDED[0].filled(cluster.model, PICTURE))
