"""The body of /v1/responses: settings here, its items in items.py.

What is not named here and a chat may say is passed on to it in the same words.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from epd.gateway.fields import Fields
from epd.gateway.parts import STRING
from epd.gateway.schemas import (
    MAX_LOGPROBS,
    MAX_SALT_CHARACTERS,
    MAX_TOKENS,
)
from epd.gateway.turns import PARTS, content_tag

MAX_ITEMS = 4096
MAX_TOOLS = 128
MAX_ID_CHARACTERS = 256
MAX_INCLUDE = 16

PASSED = frozenset(
    {
        "chat_template_kwargs",
        "ignore_eos",
        "logit_bias",
        "media_io_kwargs",
        "min_p",
        "min_tokens",
        "mm_processor_kwargs",
        "priority",
        "repetition_penalty",
        "return_path",
        "seed",
        "skip_special_tokens",
        "stop",
        "stop_token_ids",
        "structured_outputs",
        "top_k",
        "user",
    }
)
"""Extensions of the specification that a chat knows too."""


class TextFormat(Fields):
    """What the text has to be; the schema stands here, not one level further down as in a chat."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(None, max_length=64)
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextSettings(Fields):
    """Of the text of an answer."""

    neutral: ClassVar = {"verbosity": ("medium",)}

    format: TextFormat | None = None


class Reasoning(Fields):
    """How much is to be thought. Summaries are not made: reasoning is shown as it is."""

    ignored: ClassVar = frozenset({"summary", "generate_summary"})

    effort: str | None = Field(None, max_length=16)


class FunctionTool(Fields):
    """A function that the model may ask for."""

    type: Literal["function"]
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseStreamOptions(Fields):
    """Padding of events is not made."""

    ignored: ClassVar = frozenset({"include_obfuscation"})


class ResponseRequest(Fields):
    """The body of /v1/responses."""

    ignored: ClassVar = frozenset({"max_tool_calls"})
    neutral: ClassVar = {
        "background": (False,),
        "conversation": (),
        "n": (1,),
        "prompt": (),
    }

    model: str | None = None
    input: Annotated[
        Annotated[str, Tag(STRING)]
        | Annotated[list[dict[str, Any]], Field(max_length=MAX_ITEMS), Tag(PARTS)],
        Discriminator(
            content_tag,
            custom_error_type="input_type",
            custom_error_message="input must be a string or a list of items",
        ),
    ]
    instructions: str | None = None
    previous_response_id: str | None = Field(None, max_length=MAX_ID_CHARACTERS)
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = (
        Field(None, max_length=MAX_INCLUDE)
    )
    text: TextSettings | None = None
    reasoning: Reasoning | None = None
    tools: list[FunctionTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    metadata: dict[str, str] | None = Field(None, max_length=16)
    safety_identifier: str | None = Field(None, max_length=64)
    cache_salt: str | None = Field(None, min_length=1, max_length=MAX_SALT_CHARACTERS)
    prompt_cache_key: str | None = Field(None, max_length=64)

    @property
    def kept(self) -> bool:
        """Whether it can be continued afterwards."""
        return self.store is not False

    @property
    def wants_logprobs(self) -> bool:
        """Of the answer's text."""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())

    def passed_on(self) -> dict[str, Any]:
        """What a chat says in the same words. BadRequest names what neither of the two says."""
        passed = {}
        for name, value in (self.model_extra or {}).items():
            if name in PASSED:
                passed[name] = value
            else:
                self._check(name, value, "")
        return passed

    def check(self) -> None:
        """All that is said inside of the settings."""
        for name in ("text", "reasoning", "stream_options"):
            if isinstance(settings := getattr(self, name), Fields):
                settings.check_extra(name)
        for i, tool in enumerate(self.tools or ()):
            tool.check_extra(f"tools[{i}]")
