"""From the body of /v1/completions to what is to be done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from epd.errors import BadRequest
from epd.gateway.completions.schemas import DEFAULT_TOKENS, CompletionRequest, Prompt
from epd.gateway.completions.shape import CompletionShape
from epd.gateway.errors import from_validation
from epd.gateway.front import Front, Prepared, read_body
from epd.gateway.parts import TextContent
from epd.gateway.places import named_as
from epd.gateway.schemas import ChatRequest
from epd.prompt import Draft, ItemPart, Message, Rendering
from epd.prompt.chat import items_of

MAX_CHOICES = 128
"""Of all prompts of a request together."""


def completions(raw: bytes, tenant: str, *, front: Front, model_name: str) -> Prepared:
    """Every prompt is a request of its own to the cluster."""
    body = read_body(CompletionRequest, raw)
    passed = body.passed_on()
    with named_as(_as_written):
        chat = _as_chat(body, passed)
        shape = CompletionShape(chat, model_name=model_name, texts=front.builder.token_texts)
        drafts: list[Draft] = []

        def build(messages: list[Message], rendering: Rendering) -> Draft:
            drafts.extend(_draft(front, body, prompt, messages) for prompt in body.prompt)
            return drafts[0]

        prepared = front.prepared(chat, tenant, shape, build, model_name=model_name, raw=True)
    _check(body, chat)
    drawn = int(chat.seed is None)  # where the client gives no seed, each prompt has one of its own
    first = prepared.spec
    more = (
        replace(
            first,
            draft=draft,
            sampling=replace(first.sampling, seed=(first.sampling.seed + i * drawn) % 2**63),
        )
        for i, draft in enumerate(drafts[1:], 1)
    )
    return replace(prepared, more=tuple(more))


def _as_chat(body: CompletionRequest, passed: dict[str, Any]) -> ChatRequest:
    """Its items as the message of a chat, and what both say in the chat's words."""
    for i, part in enumerate(body.items or ()):
        if isinstance(part, TextContent):
            where = f"items[{i}]"
            raise BadRequest(f"{where}: the text of a prompt stands in the prompt", param=where)
    said: dict[str, Any] = {
        **passed,
        "model": body.model,
        "messages": [{"role": "user", "content": body.items or ""}],
        "max_tokens": body.max_tokens or DEFAULT_TOKENS,
        "logprobs": body.logprobs is not None,
        "top_logprobs": body.logprobs,
    }
    try:
        return ChatRequest.model_validate(said)
    except ValidationError as error:
        raise from_validation(error) from None


def _check(body: CompletionRequest, chat: ChatRequest) -> None:
    several = len(body.prompt) > 1
    if several and body.items:
        raise BadRequest("items belong to one prompt, not to several", param="items")
    if several and chat.prompt_logprobs is not None:
        raise BadRequest("prompt_logprobs needs one prompt alone", param="prompt_logprobs")
    if len(body.prompt) * (chat.n or 1) > MAX_CHOICES:
        raise BadRequest(f"more than {MAX_CHOICES} choices of all prompts together", param="n")


def _draft(front: Front, body: CompletionRequest, prompt: Prompt, messages: list[Message]) -> Draft:
    items: list[tuple[str, ItemPart]] = [
        (f"items[{i}]", item) for i, (_, item) in enumerate(items_of(messages))
    ]
    adds = body.add_special_tokens is not False
    return front.builder.build_raw(prompt, items, add_special_tokens=adds)


def _as_written(message: int | None, part: int | None) -> str:
    if message is None:
        return "prompt"
    return "items" if part is None else f"items[{part}]"
