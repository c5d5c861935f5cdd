"""Tokenises text in which nothing is special, as it stands somewhere inside a prompt."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any


class PlainText:
    """A twin of a tokenizer that knows none of its special tokens, nor the `also` ones.

    So a user's text that looks like one is text, as in the prompt. The text is taken to follow a
    special token, for tokenizers that treat the beginning of a prompt in another way. Thread-safe.
    """

    def __init__(self, tokenizer: Any, *, also: Iterable[str] = ()) -> None:
        from tokenizers import AddedToken, Tokenizer

        hidden = set(also)
        plain = {
            i: token
            for i, token in tokenizer.get_added_tokens_decoder().items()
            if not token.special and token.content not in hidden
        }
        self._mark = f"zq{secrets.token_hex(16)}qz"
        self._twin = Tokenizer(tokenizer.model)
        if tokenizer.normalizer is not None:
            self._twin.normalizer = tokenizer.normalizer
        if tokenizer.pre_tokenizer is not None:
            self._twin.pre_tokenizer = tokenizer.pre_tokenizer
        mark = AddedToken(self._mark, special=True, normalized=False)
        self._twin.add_tokens([mark, *(token for _, token in sorted(plain.items()))])
        self._ids = {self._twin.token_to_id(token.content): i for i, token in plain.items()}

    def encode(self, text: str) -> list[int]:
        """Ids of the text, none of them special."""
        _, *ids = self._twin.encode(self._mark + text, add_special_tokens=False).ids
        return [self._ids.get(i, i) for i in ids]

    def appended(self, before: str, text: str) -> tuple[list[int], int]:
        """What `text` becomes behind `before`: its ids, and how many of before's they replace."""
        old, new = self.encode(before), self.encode(before + text)
        kept = 0
        while kept < min(len(old), len(new)) and old[kept] == new[kept]:
            kept += 1
        return new[kept:], len(old) - kept
