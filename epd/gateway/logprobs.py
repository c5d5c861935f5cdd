"""Log-probabilities in the forms in which clients read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from epd.prompt import TokenTexts
from epd.types import TokenLogprobs

_LOWEST = -9999.0  # OpenAI's word for "very unlikely"; JSON has no minus infinity


def of_answer(
    texts: TokenTexts,
    token_ids: Sequence[int],
    logprobs: Sequence[TokenLogprobs],
    *,
    shows_ids: bool,
) -> dict[str, Any]:
    """OpenAI's `logprobs` of a choice or of a chunk of it, with token ids for who asked for them:
    several tokens may have one text."""
    content = [
        {
            **_token(texts, token_id, found.logprob, shows_ids),
            "top_logprobs": [_token(texts, *likely, shows_ids) for likely in found.top],
        }
        for token_id, found in zip(token_ids, logprobs, strict=True)
    ]
    return {"content": content, "refusal": None}


def of_text(
    texts: TokenTexts, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs], offset: int
) -> dict[str, Any]:
    """OpenAI's `logprobs` of a text completion; its text begins at `offset`."""
    tokens = [texts.text(token_id) for token_id in token_ids]
    lengths = [len(token) for token in tokens]
    return {
        "tokens": tokens,
        "token_logprobs": [max(found.logprob, _LOWEST) for found in logprobs],
        "top_logprobs": [
            {texts.text(likely): max(logprob, _LOWEST) for likely, logprob in found.top}
            for found in logprobs
        ],
        "text_offset": list(accumulate(lengths, initial=offset))[:-1],
    }


def of_prompt(
    texts: TokenTexts,
    token_ids: Sequence[int],
    logprobs: Sequence[TokenLogprobs],
    row_spans: Iterable[tuple[int, int]] = (),
) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: by token id, the prompt's own token first. The rank is left out
    where it is not known.

    Nothing precedes the first token, and what takes a row is no token: there is nothing to say of
    either.
    """
    places = zip(token_ids[1:], logprobs, strict=True)
    found = [None, *(_place(texts, token_id, one) for token_id, one in places)]
    for start, end in row_spans:
        found[start:end] = [None] * (end - start)
    return found


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


def _token(texts: TokenTexts, token_id: int, logprob: float, shows_id: bool) -> dict[str, Any]:
    return {
        **({"token_id": token_id} if shows_id else {}),
        "token": texts.text(token_id),
        "logprob": max(logprob, _LOWEST),
        "bytes": texts.bytes(token_id),
    }
