"""What comes back, in the form that users of offline engines know, read from HTTP's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprob:
    """Of one token at one place. `rank` counts from 1; None where it is none of the likeliest."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


Place = dict[int, Logprob]
"""By token id, the token that is there first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionOutput:
    """One choice. `logprobs` has a place per token, where they were asked for.

    Of a chat, `text` is without `reasoning` and `tool_calls`, which are in OpenAI's form.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str | None
    stop_reason: int | str | None = None
    logprobs: list[Place] | None = None
    cumulative_logprob: float | None = None
    reasoning: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutput:
    """One prompt and all its choices. `prompt` is None for a chat."""

    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...] | None
    num_prompt_tokens: int
    num_cached_tokens: int
    outputs: list[CompletionOutput]
    prompt_logprobs: list[Place | None] | None = None
    finished: bool = True


def read_output(body: Mapping[str, Any], prompt: str | None) -> RequestOutput:
    """From the JSON object of an answer. What a completion says of its prompt is in a choice."""
    usage = body["usage"]
    of_prompt = {**body["choices"][0], **body}
    details = usage.get("prompt_tokens_details") or {}
    ids = of_prompt.get("prompt_token_ids")
    return RequestOutput(
        request_id=body["id"],
        prompt=prompt,
        prompt_token_ids=None if ids is None else tuple(ids),
        num_prompt_tokens=usage["prompt_tokens"],
        num_cached_tokens=details.get("cached_tokens", 0),
        outputs=[_choice(choice) for choice in body["choices"]],
        prompt_logprobs=_of_prompt(of_prompt.get("prompt_logprobs")),
    )


def _choice(choice: Mapping[str, Any]) -> CompletionOutput:
    said = choice.get("message") or {"content": choice.get("text")}
    logprobs = _of_answer(choice)
    ids = tuple(choice["token_ids"])
    total = None
    if logprobs is not None:
        total = sum(place[token].logprob for place, token in zip(logprobs, ids, strict=True))
    return CompletionOutput(
        index=choice["index"],
        text=said["content"] or "",
        token_ids=ids,
        finish_reason=choice["finish_reason"],
        stop_reason=choice.get("stop_reason"),
        logprobs=logprobs,
        cumulative_logprob=total,
        reasoning=said.get("reasoning_content"),
        tool_calls=tuple(said.get("tool_calls") or ()),
    )


def _of_answer(choice: Mapping[str, Any]) -> list[Place] | None:
    said = choice.get("logprobs")
    if said is None:
        return None
    return [_place(entry) for entry in said["content"]]


def _place(entry: Mapping[str, Any]) -> Place:
    """The token itself first, then the likeliest, by falling probability."""
    ranks = {likely["token_id"]: rank for rank, likely in enumerate(entry["top_logprobs"], 1)}
    return {
        one["token_id"]: Logprob(
            logprob=one["logprob"], rank=ranks.get(one["token_id"]), decoded_token=one["token"]
        )
        for one in (entry, *entry["top_logprobs"])
    }


def _of_prompt(said: Any) -> list[Place | None] | None:
    if said is None:
        return None
    return [
        None
        if place is None
        else {
            int(token): Logprob(
                logprob=one["logprob"],
                rank=one.get("rank"),
                decoded_token=one.get("decoded_token"),
            )
            for token, one in place.items()
        }
        for place in said
    ]
