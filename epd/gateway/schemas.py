"""OpenAI's chat request as this server understands it. Every count and length has a limit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from epd.errors import BadRequest
from epd.gateway.fields import Fields
from epd.gateway.parts import PART_TAGS, STRING, Content, TextContent
from epd.prompt import ItemPart, Message, TextPart

MAX_MESSAGES = 4096
MAX_PARTS = 4096
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1024
MAX_STOP_TOKENS = 256
MAX_TOKENS = 2**31 - 1
MAX_CHOICES = 16
MAX_BIASES = 1024
MAX_LOGPROBS = 20
MAX_SALT_CHARACTERS = 256
MAX_SETTINGS = 32

# Tags name the members of unions; pydantic puts them in error paths and errors.py takes them out.
PARTS, LIST = "<parts>", "<list>"
TAGS = PART_TAGS | {PARTS, LIST}


def _content_tag(value: Any) -> str | None:
    return STRING if isinstance(value, str) else PARTS if isinstance(value, list) else None


def _stop_tag(value: Any) -> str | None:
    return STRING if isinstance(value, str) else LIST if isinstance(value, list) else None


class ChatMessage(Fields):
    """One turn. What a client gets as an answer can be sent back as the assistant's turn."""

    neutral: ClassVar = {
        "annotations": ([],),
        "audio": (),
        "function_call": (),
        "reasoning_content": ("",),
        "refusal": ("",),
        "tool_call_id": (),
        "tool_calls": ([],),
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag(STRING)]
        | Annotated[list[Content], Field(min_length=1, max_length=MAX_PARTS), Tag(PARTS)],
        Discriminator(
            _content_tag,
            custom_error_type="content_type",
            custom_error_message="content must be a string or a list of parts",
        ),
    ]
    name: str | None = Field(None, max_length=256)

    def to_prompt(self, items: Iterator[ItemPart]) -> Message:
        """Takes its items from the front. OpenAI's "developer" is "system" to templates."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return Message(role=role, content=self.content, name=self.name)
        content = tuple(
            TextPart(text=part.text) if isinstance(part, TextContent) else next(items)
            for part in self.content
        )
        return Message(role=role, content=content, name=self.name)


class StreamOptions(Fields):
    """Only with `stream`."""

    neutral: ClassVar = {"include_obfuscation": (False,)}

    include_usage: bool | None = None


Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]


Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")


def _sorted_set(ids: list[int]) -> list[int]:
    return sorted(set(ids))


def _by_id(bias: dict[str, float]) -> dict[str, float]:
    for name in bias:
        if _TOKEN_ID.fullmatch(name) is None:
            raise PydanticCustomError("token_id", "keys must be token ids")
    return bias


class ChatRequest(Fields):
    """The body of /v1/chat/completions. None: not given, the checkpoint's default applies."""

    ignored: ClassVar = frozenset(
        {
            "metadata",
            "prompt_cache_key",
            "prompt_cache_retention",
            "safety_identifier",
            "store",
            "user",
        }
    )
    neutral: ClassVar = {
        "audio": (),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "modalities": (["text"],),
        "moderation": (),
        "parallel_tool_calls": (True, False),
        "prediction": (),
        "reasoning_effort": (),
        "response_format": ({"type": "text"},),
        "service_tier": ("auto", "default"),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "verbosity": (),
        "web_search_options": (),
    }

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    min_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=-1, le=MAX_TOKENS)
    min_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    repetition_penalty: float | None = Field(None, gt=0, le=10, allow_inf_nan=False)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: (
        Annotated[dict[str, Bias], Field(max_length=MAX_BIASES), AfterValidator(_by_id)] | None
    ) = None
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: (
        Annotated[
            Annotated[Stop, Tag(STRING)]
            | Annotated[list[Stop], Field(max_length=MAX_STOPS), Tag(LIST)],
            Discriminator(
                _stop_tag,
                custom_error_type="stop_type",
                custom_error_message="stop must be a string or a list of strings",
            ),
        ]
        | None
    ) = None
    stop_token_ids: (
        Annotated[
            list[Annotated[int, Field(ge=0)]],
            Field(max_length=MAX_STOP_TOKENS),
            AfterValidator(_sorted_set),
        ]
        | None
    ) = None
    ignore_eos: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    prompt_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    cache_salt: str | None = Field(None, min_length=1, max_length=MAX_SALT_CHARACTERS)
    return_token_ids: bool | None = None
    return_path: bool | None = None
    media_io_kwargs: dict[str, Any] | None = Field(None, max_length=MAX_SETTINGS)
    mm_processor_kwargs: dict[str, Any] | None = Field(None, max_length=MAX_SETTINGS)

    def check(self) -> None:
        """What one field alone cannot tell. BadRequest names the field."""
        self.check_extra()
        if self.stream_options is not None and not self.stream:
            raise BadRequest("stream_options needs stream: true", param="stream_options")
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise BadRequest(
                "max_tokens and max_completion_tokens differ; give one", param="max_tokens"
            )
        if (self.min_tokens or 0) > (self.most_tokens or MAX_TOKENS):
            raise BadRequest("min_tokens is more than max_tokens", param="min_tokens")
        if self.top_logprobs and not self.logprobs:
            raise BadRequest("top_logprobs needs logprobs: true", param="top_logprobs")

    @property
    def most_tokens(self) -> int | None:
        """The limit of a choice, by either of its names."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as one form."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)
