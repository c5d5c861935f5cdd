"""OpenAI's chat request as this server understands it. Every count and length has a limit."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from epd.errors import BadRequest
from epd.gateway.fields import Fields
from epd.gateway.parts import PART_TAGS, STRING
from epd.gateway.structured import ResponseFormat, StructuredOutputs, wanted_grammar
from epd.gateway.tools import MAX_TOOLS, SOME, Offer, Tool, ToolChoice
from epd.gateway.turns import PARTS, ChatMessage
from epd.prompt import Rendering

MAX_MESSAGES = 4096
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1024
MAX_STOP_TOKENS = 256
MAX_TOKENS = 2**31 - 1
MAX_CHOICES = 16
MAX_BIASES = 1024
MAX_LOGPROBS = 20
MAX_SALT_CHARACTERS = 256
MAX_SETTINGS = 32
MAX_PRIORITY = 1000
MAX_ARGUMENT_CHARACTERS = 1 << 16
MAX_TEMPLATE_CHARACTERS = 1 << 16

# Tags name the members of unions; pydantic puts them in error paths and errors.py takes them out.
LIST = "<list>"
TAGS = PART_TAGS | {PARTS, LIST, SOME}


def _stop_tag(value: Any) -> str | None:
    return STRING if isinstance(value, str) else LIST if isinstance(value, list) else None


class StreamOptions(Fields):
    """Only with `stream`."""

    neutral: ClassVar = {"include_obfuscation": (False,)}

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]


Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]

# A client's own name for its request, which stands in the answer as it is.
RequestName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\z")]

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
        "allowed_token_ids": (),
        "audio": (),
        "bad_words": ([],),
        "documents": ([],),
        "echo": (False,),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "length_penalty": (1.0,),
        "modalities": (["text"],),
        "moderation": (),
        "prediction": (),
        "return_tokens_as_token_ids": (False,),
        "service_tier": ("auto", "default"),
        "spaces_between_special_tokens": (True,),
        "truncate_prompt_tokens": (),
        "use_beam_search": (False,),
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
    # Far below, logits would leave the range of float32.
    repetition_penalty: float | None = Field(None, ge=0.01, le=10, allow_inf_nan=False)
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
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    prompt_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    cache_salt: str | None = Field(None, min_length=1, max_length=MAX_SALT_CHARACTERS)
    request_id: RequestName | None = None
    priority: int | None = Field(None, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    reasoning_effort: Effort | None = None
    chat_template: (
        Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE_CHARACTERS)] | None
    ) = None
    chat_template_kwargs: dict[str, Any] | None = Field(None, max_length=MAX_SETTINGS)
    return_token_ids: bool | None = None
    return_path: bool | None = None
    media_io_kwargs: dict[str, Any] | None = Field(None, max_length=MAX_SETTINGS)
    mm_processor_kwargs: dict[str, Any] | None = Field(None, max_length=MAX_SETTINGS)

    def check(self) -> None:
        """What one field alone cannot tell. BadRequest names the field."""
        self.check_extra()
        for i, message in enumerate(self.messages):
            message.check(f"messages[{i}]")
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
        if len(json.dumps(self.chat_template_kwargs)) > MAX_ARGUMENT_CHARACTERS:
            raise BadRequest(
                f"chat_template_kwargs: more than {MAX_ARGUMENT_CHARACTERS} characters of JSON",
                param="chat_template_kwargs",
            )
        if self.continue_final_message and self.add_generation_prompt:
            raise BadRequest(
                "continue_final_message and add_generation_prompt exclude each other",
                param="continue_final_message",
            )
        _ = self.grammar, self.offer  # to make them is to check them

    @cached_property
    def offer(self) -> Offer:
        """The functions that it has for the model. BadRequest where they have no sense."""
        return Offer(self.tools, self.tool_choice)

    @cached_property
    def grammar(self) -> tuple[str, str]:
        """What the answer has to be, "" for any text, and the field that says so. BadRequest."""
        return wanted_grammar(self.response_format, self.structured_outputs)

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

    @property
    def shows_usage_so_far(self) -> bool:
        """Whether every chunk of a stream has the usage up to it."""
        options = self.stream_options
        return options is not None and bool(options.continuous_usage_stats)

    @property
    def rendering(self) -> Rendering:
        """How its messages become a prompt."""
        continues = bool(self.continue_final_message)
        opens = not continues if self.add_generation_prompt is None else self.add_generation_prompt
        return Rendering(
            add_generation_prompt=opens,
            continue_final_message=continues,
            tools=self.offer.shown,
            arguments=self.chat_template_kwargs or {},
            effort=self.reasoning_effort,
            template=self.chat_template,
        )
