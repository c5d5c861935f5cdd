"""A chat template that a request brings: refused unless the operator trusts it, then in bounds."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from epd.types import FinishReason
from tests.gateway.conftest import Serve
from tests.gateway.scripted import Last, ScriptedService
from tests.prompt.folders import STRING_TEMPLATE, TOOLS_TEMPLATE

pytestmark = pytest.mark.anyio

URL = "/v1/chat/completions"
OWN = (
    "{% for m in messages %}<|im_start|>{{ m.role }} said: {{ m.content }}<|im_end|>{% endfor %}"
    "{% if loudly %}LOUD{% endif %}"
)
HI = "<|im_start|>user said: hi<|im_end|>"
SHOWS = "{% for m in messages %}{{ m.content }}{% endfor %}"
DOUBLED = "{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
LARGE = "{% set ns = namespace(x='a') %}" + DOUBLED


def chat(said: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": said}], **fields}


def service_of() -> ScriptedService:
    return ScriptedService([Last((65,), FinishReason.LENGTH)])


@pytest.fixture
async def asked(
    serve: Serve, tokenizer: Tokenizer
) -> AsyncIterator[tuple[httpx.AsyncClient, ScriptedService]]:
    service = service_of()
    bounds = {"trust_request_chat_template": True, "request_chat_template_timeout_s": 1.0}
    async with serve(service, **bounds) as client:
        yield client, service


async def test_it_is_refused_unless_it_is_trusted(serve: Serve) -> None:
    """Nothing of it is looked at; null is none."""
    service = service_of()
    async with serve(service) as client:
        for path, body in (
            (URL, chat(chat_template=OWN)),
            ("/tokenize", {"messages": chat()["messages"], "chat_template": "{{"}),
            (URL, chat(chat_template_kwargs={"chat_template": OWN})),
        ):
            response = await client.post(path, json=body)
            assert response.status_code == 400, response.text
            assert "chat_template" in response.json()["error"]["param"]
        assert (await client.post(URL, json=chat(chat_template=None))).status_code == 200
    assert len(service.specs) == 1


async def test_one_that_is_trusted_makes_the_prompt_and_says_how_answers_are_read(
    asked: tuple[httpx.AsyncClient, ScriptedService], tokenizer: Tokenizer
) -> None:
    """With its own special tokens; those that a user writes are text. Its variables are its own."""
    client, service = asked
    for body in (
        chat(chat_template=OWN),
        chat(chat_template=OWN, chat_template_kwargs={"loudly": True}),
        chat("<|im_end|>", chat_template=OWN),
        chat(),
    ):
        response = await client.post(URL, json=body)
        assert response.status_code == 200, response.text
    texts = [list(spec.draft.text[0]) for spec in service.specs]
    assert texts[0] == tokenizer.encode(HI).ids
    assert texts[1] == tokenizer.encode(HI + "LOUD").ids
    (end,) = tokenizer.encode("<|im_end|>").ids
    assert texts[2].count(end) == 1 and "said:" in tokenizer.decode(texts[2])
    assert "said:" not in tokenizer.decode(texts[3])
    silent = chat(chat_template=STRING_TEMPLATE, chat_template_kwargs={"loudly": True})
    response = await client.post(URL, json=silent)
    assert response.json()["error"]["param"] == "chat_template_kwargs.loudly"
    # Answers are read as it says: the model's own shows neither tools nor reasoning.
    service.script = [tokenizer.encode("a</think>b").ids, Last((), FinishReason.LENGTH)]
    tools = [{"type": "function", "function": {"name": "go"}}]
    assert (await client.post(URL, json=chat(tools=tools))).status_code == 400
    response = await client.post(URL, json=chat(tools=tools, chat_template=TOOLS_TEMPLATE))
    message = response.json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("a", "b")


@pytest.mark.parametrize(
    "bad",
    [
        {
            "{% if %}": "not valid",
            "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}" + SHOWS: "recursion|too much|valid",
            "no chat": "shows neither string content nor text parts",
            "{{ messages.__class__.__mro__ }}" + SHOWS: "shows neither",
            "{{ cycler.__init__.__globals__.os.environ }}" + SHOWS: "shows neither",
            "{{ messages.append(1) }}" + SHOWS: "shows neither",
            "{% include '/etc/hostname' %}" + SHOWS: "shows neither",
            "x" * 65_537: "at most 65536",
            "": "at least 1",
        },
        {
            "{{ 9 ** (9 ** 9) }}" + SHOWS: "longer than 1 s",
            LARGE + SHOWS: "shows neither|too much|longer than",
        },
    ],
    ids=["broken", "endless"],
)
async def test_one_that_cannot_be_used_harms_nobody(
    asked: tuple[httpx.AsyncClient, ScriptedService], bad: dict[str, str]
) -> None:
    """Nor reaches anything of the machine: it is a 400, and the next request is answered."""
    client, service = asked
    for template, said in bad.items():
        response = await client.post(URL, json=chat(chat_template=template))
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["param"] == "chat_template"
        assert re.search(said, error["message"]), error["message"]
    assert not service.specs
    assert (await client.post(URL, json=chat())).status_code == 200
