"""What users have already: every client gets the answers that a plain request gets."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import FOLDER, ROOT, python
from tests.clients.running import needs, run
from tests.cluster.running import Cluster, data_url, image_part, picture

pytestmark = [pytest.mark.clients, needs("clients", "node")]

SCRIPTS = Path(__file__).parent / "scripts"
QUESTION = "What is in it?"
MAX_TOKENS = 24
PICTURE = picture(140, 112)

PYTHON = ("openai_python", "litellm_chat", "langchain_chat")
NODE = ("openai_node", "ai_sdk")
CLIENTS = (*PYTHON, *NODE)
LISTING = ("openai_python", "openai_node")

Told = dict[str, Any]
Reports = Callable[[str], dict[str, Told]]


@dataclass(frozen=True)
class Plain:
    """The answers to the same questions without any client."""

    text: Told
    picture: Told


@pytest.fixture(scope="module")
def plain(cluster: Cluster) -> Plain:
    shown = [image_part(PICTURE), {"type": "text", "text": QUESTION}]
    return Plain(_asked(cluster, QUESTION), _asked(cluster, shown))


def _asked(cluster: Cluster, content: Any) -> Told:
    body = cluster.post(
        {
            "model": cluster.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
        }
    ).json()
    choice, usage = body["choices"][0], body["usage"]
    return {
        "text": choice["message"]["content"],
        "finish": choice["finish_reason"],
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
    }


@pytest.fixture(scope="module")
def report_of(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """What a client's script told, which runs once."""
    said = json.dumps(
        {
            "url": cluster.url,
            "model": cluster.model,
            "question": QUESTION,
            "picture": data_url(PICTURE),
            "max_tokens": MAX_TOKENS,
        }
    )

    @cache
    def get(client: str) -> dict[str, Told]:
        home = tmp_path_factory.mktemp(client)
        if client in NODE:
            argv: list[str | Path] = ["/usr/bin/env", "node", SCRIPTS / f"{client}.mjs"]
            done = run(argv, home, cwd=FOLDER / "node", said=said)
        else:
            # OpenAI's own is one of our tools, in .venv; the others bring an older one.
            interpreter = sys.executable if client == "openai_python" else python("clients")
            argv = [interpreter, "-m", f"tests.clients.scripts.{client}"]
            done = run(argv, home, cwd=ROOT, said=said)
        told: dict[str, Told] = json.loads(done.stdout.splitlines()[-1])
        return told

    return get


def _told(report: dict[str, Told], check: str) -> Told:
    told = report[check]
    assert "fault" not in told, told["fault"]
    return told


@pytest.mark.parametrize("client", LISTING)
def test_it_finds_the_one_model(report_of: Reports, cluster: Cluster, client: str) -> None:
    assert _told(report_of(client), "models") == {"ids": [cluster.model]}


@pytest.mark.parametrize("client", CLIENTS)
def test_it_gets_the_whole_answer(report_of: Reports, plain: Plain, client: str) -> None:
    assert _told(report_of(client), "whole") == plain.text


@pytest.mark.parametrize("client", CLIENTS)
def test_it_gets_the_answer_to_a_picture(report_of: Reports, plain: Plain, client: str) -> None:
    assert _told(report_of(client), "picture") == plain.picture
    assert plain.picture["prompt_tokens"] > plain.text["prompt_tokens"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_tells_it_the_same_with_usage(
    report_of: Reports, plain: Plain, client: str
) -> None:
    assert _told(report_of(client), "stream") == plain.text


@pytest.mark.parametrize("client", CLIENTS)
def test_another_model_is_its_own_not_found_error(report_of: Reports, client: str) -> None:
    told = _told(report_of(client), "unknown_model")
    assert told["status"] == 404
    assert "'another'" in told["message"]
    assert told.get("code", "model_not_found") == "model_not_found"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_bad_field_is_its_own_bad_request_error(report_of: Reports, client: str) -> None:
    told = _told(report_of(client), "bad_field")
    assert told["status"] == 400
    assert told.get("param", "top_p") == "top_p"
    assert told.get("kind", "invalid_request_error") == "invalid_request_error"


@pytest.mark.parametrize("client", CLIENTS)
def test_what_it_left_is_cancelled(report_of: Reports, client: str) -> None:
    """The script goes on afterwards: it is the client that closes the stream."""
    assert _told(report_of(client), "left") == {"pieces": 1, "idle": True}
