"""Log-probabilities in the forms in which clients read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epd.prompt import TokenTexts
from epd.types import TokenLogprobs

_LOWEST = -9999.0  # OpenAI's word for "very unlikely"; JSON has no minus infinity


def of_answer(
    texts: TokenTexts, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs]
) -> dict[str, Any]:
    """OpenAI's `logprobs` of a choice or of a chunk of it."""
    content = [
        {
            **_token(texts, token_id, found.logprob),
            "top_logprobs": [_token(texts, *likely) for likely in found.top],
        }
        for token_id, found in zip(token_ids, logprobs, strict=True)
    ]
    return {"content": content, "refusal": None}


def of_prompt(
    texts: TokenTexts, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs]
) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: by token id, the prompt's own token first. Nothing precedes the
    first token, so there is nothing to say of it. The rank is left out where it is not known."""
    places = zip(token_ids[1:], logprobs, strict=True)
    return [None, *(_place(texts, token_id, found) for token_id, found in places)]


def _place(texts: TokenTexts, token_id: int, found: TokenLogprobs) -> dict[str, Any]:
    own = {"logprob": max(found.logprob, _LOWEST), "decoded_token": texts.text(token_id)}
    entries: dict[str, Any] = {str(token_id): own}
    for rank, (likely, logprob) in enumerate(found.top, 1):
        entries[str(likely)] = {
            "logprob": max(logprob, _LOWEST),
            "rank": rank,
            "decoded_token": texts.text(likely),
        }
    return entries


def _token(texts: TokenTexts, token_id: int, logprob: float) -> dict[str, Any]:
    return {
        "token": texts.text(token_id),
        "logprob": max(logprob, _LOWEST),
        "bytes": texts.bytes(token_id),
    }
