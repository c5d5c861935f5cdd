"""The body of /v1/completions: what it does not share with a chat's."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from epd.gateway.fields import Fields
from epd.gateway.parts import Content
from epd.gateway.schemas import MAX_LOGPROBS, MAX_TOKENS
from epd.gateway.turns import MAX_PARTS

MAX_PROMPTS = 64
DEFAULT_TOKENS = 16
"""OpenAI's: a completion that says nothing is short."""

Prompt = str | list[int]


def _prompts(value: Any) -> list[Prompt]:
    """One prompt or several, each a text or token ids; as a list of several."""
    several = isinstance(value, list) and value and not _is_id(value[0])
    prompts = value if several else [value]
    if not all(isinstance(one, str) or _are_ids(one) for one in prompts):
        raise PydanticCustomError(
            "prompt_type", "must be a string, a list of token ids, or a list of either"
        )
    if len(prompts) > MAX_PROMPTS:
        raise PydanticCustomError("prompt_count", f"has more than {MAX_PROMPTS} prompts")
    return list(prompts)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_id, value))


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_ONE = [{"type": "string", "minLength": 1}, _IDS]
_MANY = {"type": "array", "items": {"anyOf": _ONE}, "minItems": 1, "maxItems": MAX_PROMPTS}

Prompts = Annotated[list[Prompt], PlainValidator(_prompts)]
PROMPT_SCHEMA = {"anyOf": [*_ONE, _MANY]}


NO_CHAT = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "function_call",
        "functions",
        "max_completion_tokens",
        "messages",
        "parallel_tool_calls",
        "reasoning_effort",
        "tool_choice",
        "tools",
        "top_logprobs",
    }
)
"""What a chat's body may say and a completion's may not."""


class CompletionRequest(Fields):
    """The body of /v1/completions. All that a chat may say of sampling may be said here too.

    Special tokens in a prompt are special. `items` are the prompt's pictures, videos and clips,
    as the parts of a chat's message: each takes the next placeholder of its kind.
    """

    neutral: ClassVar = {"best_of": (1,), "echo": (False,), "suffix": ("",)}

    model: str
    prompt: Annotated[Prompts, WithJsonSchema(PROMPT_SCHEMA)]
    items: list[Content] | None = Field(None, max_length=MAX_PARTS)
    add_special_tokens: bool | None = None
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    def passed_on(self) -> dict[str, Any]:
        """What a chat says in the same words. BadRequest names what neither of the two says."""
        passed = {}
        for name, value in (self.model_extra or {}).items():
            if name in self.neutral or name in NO_CHAT:
                self._check(name, value, "")
            else:
                passed[name] = value
        return passed
