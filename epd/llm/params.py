"""How tokens are drawn, in the words that users of offline engines know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

DEFAULT_MAX_TOKENS = 16

_CHECKPOINTS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "min_tokens"}
)
"""What the checkpoint decides where a request is silent: always said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Of one request. What is not said is neutral, and not the checkpoint's.

    `logprobs` and `prompt_logprobs` are how many of the likeliest tokens are told at each place.
    `structured_outputs` has one of json, regex, choice and grammar.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = DEFAULT_MAX_TOKENS
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    structured_outputs: Mapping[str, Any] | None = None

    def body(self) -> dict[str, Any]:
        """The fields of a request that say this; `logprobs` is each API's own matter."""
        said: dict[str, Any] = {"max_tokens": self.max_tokens}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in _CHECKPOINTS or value != one.default:
                said[one.name] = _plain(value)
        said.pop("logprobs", None)
        return {name: value for name, value in said.items() if value is not None}


def _plain(value: Any) -> Any:
    """As JSON has it; keys of logit_bias are words there."""
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value
