"""What `epd serve` is told about the model is what its clients find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.running import Cluster

CONTEXT = 64
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{{ 'x ' * extra if extra else '' }}"


@pytest.fixture(scope="module")
def cluster(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    template = tmp_path_factory.mktemp("template") / "own.jinja"
    template.write_text(TEMPLATE)
    flags = ["--served-model-name", "first", "org/second", "--max-model-len", str(CONTEXT)]
    flags += ["--chat-template", str(template)]
    cluster = Cluster(path, "EPD", flags=flags)
    yield cluster
    assert cluster.stop() == 0


def ask(cluster: Cluster, model: str = "auto", **fields: Any) -> httpx.Response:
    message = {"role": "user", "content": "x x"}
    body = {"model": model, "messages": [message], "max_tokens": 2, **fields}
    return httpx.post(f"{cluster.url}/v1/chat/completions", json=body, timeout=60)


def test_the_model_answers_to_all_of_its_names(cluster: Cluster) -> None:
    cards = httpx.get(f"{cluster.url}/v1/models").json()["data"]
    assert [(card["id"], card["max_model_len"]) for card in cards] == [
        ("first", CONTEXT),
        ("org/second", CONTEXT),
    ]
    for name in ("first", "org/second", "auto"):
        assert ask(cluster, name).json()["model"] == "first"
    assert ask(cluster, "tiny").status_code == 404


def test_prompts_are_made_by_the_operators_template(cluster: Cluster) -> None:
    """And its arguments are the client's."""
    short = ask(cluster).json()["usage"]["prompt_tokens"]
    long = ask(cluster, chat_template_kwargs={"extra": 20}).json()["usage"]["prompt_tokens"]
    assert 2 <= short <= 3 and long - short >= 20


def test_prompt_and_answer_share_the_context(cluster: Cluster) -> None:
    most = ask(cluster, max_tokens=CONTEXT, ignore_eos=True).json()
    assert most["usage"]["total_tokens"] == CONTEXT
    assert most["choices"][0]["finish_reason"] == "length"
    refused = ask(cluster, chat_template_kwargs={"extra": CONTEXT})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
