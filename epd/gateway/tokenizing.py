"""/tokenize and /detokenize, in vLLM's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from epd.errors import BadRequest
from epd.gateway.errors import from_validation
from epd.gateway.fields import Fields
from epd.gateway.front import Front, read_body
from epd.gateway.schemas import ChatRequest
from epd.gateway.shapes import ChatShape

MAX_IDS = 1 << 20


class TokenizeRequest(Fields):
    """A `prompt`, or a chat with its `messages` as a chat completion takes it.

    `add_special_tokens`, true unless given, is for a prompt alone: a chat's template has its own.
    """

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None

    def check(self) -> None:
        """What one field alone cannot tell. BadRequest names the field."""
        if (self.prompt is None) == (self.messages is None):
            raise BadRequest("give either prompt or messages", param="prompt")
        if self.messages is None:
            self.check_extra()
        elif self.add_special_tokens:
            raise BadRequest(
                "a chat's template has its own special tokens", param="add_special_tokens"
            )


class DetokenizeRequest(Fields):
    """Token ids of which the text is wanted."""

    model: str | None = None
    tokens: list[int] = Field(max_length=MAX_IDS)


def tokenize(raw: bytes, tenant: str, *, front: Front, model_name: str) -> dict[str, Any]:
    """An item of a chat counts as the one token of its placeholder."""
    body = read_body(TokenizeRequest, raw)
    body.check()
    front.check_model(body.model or model_name, model_name=model_name)
    if body.prompt is not None:
        adds = body.add_special_tokens is not False
        ids = front.builder.tokens(body.prompt, add_special_tokens=adds)
    else:
        said = {**(body.model_extra or {}), "messages": body.messages, "model": model_name}
        chat = _chat(said)
        shape = ChatShape(chat, model_name=model_name, texts=front.builder.token_texts)
        prepared = front.of_chat(chat, tenant, shape, model_name=model_name)
        ids = front.builder.tokens_of(prepared.spec.draft)
    names = front.builder.names_of(ids) if body.return_token_strs else None
    return {
        "count": len(ids),
        "max_model_len": front.builder.max_context,
        "tokens": ids,
        "token_strs": names,
    }


def detokenize(raw: bytes, tenant: str, *, front: Front, model_name: str) -> dict[str, Any]:
    """Special tokens are shown by their names."""
    body = read_body(DetokenizeRequest, raw)
    body.check_extra()
    front.check_model(body.model or model_name, model_name=model_name)
    return {"prompt": front.builder.text_of(body.tokens, "tokens")}


def _chat(said: Mapping[str, Any]) -> ChatRequest:
    try:
        return ChatRequest.model_validate(said)
    except ValidationError as error:
        raise from_validation(error) from None
