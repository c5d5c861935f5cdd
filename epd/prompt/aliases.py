"""Keeps special tokens the template's own: what a user writes is text, whatever it looks like.

Every special token gets an alias, a string that nobody outside this process can guess. The
template's source is rewritten to write aliases, and a twin of the tokenizer knows the tokens under
their aliases only. User text is never touched: a template can inspect, trim, cut and join it as
its author meant, and no result of that can be a special token. Everything else about the twin
equals the tokenizer, so prompts have the ids that Hugging Face gives.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Tokenizer

from epd.errors import BadRequest, ConfigError


class Aliases:
    """The special tokens of one tokenizer and the `also` ones, under names of this process.

    Safe to use from several threads: nothing changes after the constructor.
    """

    def __init__(self, tokenizer: Tokenizer, *, also: Iterable[str] = ()) -> None:
        added = dict(sorted(tokenizer.get_added_tokens_decoder().items()))
        wanted = set(also)
        if missing := wanted - {token.content for token in added.values()}:
            raise ConfigError(f"the tokenizer has no token {', '.join(sorted(missing))}")
        hidden = {
            i: token
            for i, token in added.items()
            if (token.special or token.content in wanted) and token.content.strip()
        }
        # Lower-case ASCII of fixed width: normalizers leave it alone, no alias begins another.
        nonce = secrets.token_hex(16)
        self._alias = {token.content: f"zq{nonce}x{i:08d}qz" for i, token in hidden.items()}
        self._content = {alias: content for content, alias in self._alias.items()}
        self._ids = {token.content: i for i, token in hidden.items()}
        self._specials = re.compile(_any_of(self._alias))
        self._aliases = re.compile(rf"zq{nonce}x\d{{8}}qz")
        self._twin = self._build_twin(tokenizer, added)
        self._to_id = {
            self._twin.token_to_id(self._alias.get(token.content, token.content)): i
            for i, token in added.items()
        }
        self._hidden_ids = {i: content for content, i in self._ids.items()}

    def _build_twin(self, tokenizer: Tokenizer, added: dict[int, AddedToken]) -> Tokenizer:
        twin = Tokenizer(tokenizer.model)
        if tokenizer.normalizer is not None:
            twin.normalizer = tokenizer.normalizer
        if tokenizer.pre_tokenizer is not None:
            twin.pre_tokenizer = tokenizer.pre_tokenizer
        twin.add_tokens(
            [
                AddedToken(
                    self._alias.get(token.content, token.content),
                    single_word=token.single_word,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=token.normalized,
                    special=token.special,
                )
                for token in added.values()
            ]
        )
        return twin

    def id_of(self, content: str) -> int:
        """The tokenizer's own id of a hidden token."""
        return self._ids[content]

    def hides(self, token_id: int) -> bool:
        """Whether the tokenizer's id is of a hidden token."""
        return token_id in self._hidden_ids

    def alias_of(self, content: str) -> str:
        """What stands for the token in rendered text."""
        return self._alias[content]

    def find(self, text: str) -> Iterable[tuple[str, int, int]]:
        """(token, start, end) of each alias in the text, in order."""
        for match in self._aliases.finditer(text):
            if (content := self._content.get(match.group())) is not None:
                yield content, match.start(), match.end()

    def count_plain(self, text: str) -> int:
        """How often a hidden token stands in the text under its real name."""
        return sum(1 for _ in self._specials.finditer(text))

    def hide(self, value: Any) -> Any:
        """Real names become aliases, in a string or in the strings of lists and dict values."""
        if isinstance(value, str):
            return self._specials.sub(lambda match: self._alias[match.group()], value)
        if isinstance(value, dict):
            return {key: self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def show(self, text: str) -> str:
        """Aliases become real names: for people, never for the tokenizer."""
        return self._aliases.sub(lambda match: self._content.get(match.group(), ""), text)

    def encode(self, text: str) -> list[int]:
        """Ids of the text, special where it has aliases and nowhere else."""
        ids: list[int] = []
        for twin_id in self._twin.encode(text, add_special_tokens=False).ids:
            token_id = self._to_id.get(twin_id)
            if token_id is None:
                if twin_id in self._hidden_ids:  # the vocabulary itself merges text to the token
                    raise BadRequest(
                        f"the text contains {self._hidden_ids[twin_id]!r}, which this model's "
                        "tokenizer cannot read as plain text",
                        param="messages",
                    )
                token_id = twin_id
            ids.append(token_id)
        return ids


def _any_of(contents: Iterable[str]) -> str:
    """Leftmost, then longest, as tokenizers match added tokens. Never matches if there is none."""
    return "|".join(map(re.escape, sorted(contents, key=len, reverse=True))) or r"(?!)"
