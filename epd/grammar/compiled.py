"""Grammars for one vocabulary: compiled once, and followed by one guide per choice of an answer.

A guide's state is a function of the grammar and of the choice's tokens alone, so any worker can
build it anew. All limits count work, not time, so all workers agree on what is too much.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from epd.errors import BadRequest

_REMEMBERED = 32
_LIMITS = LLParserLimits(
    max_items_in_row=2_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=20_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
_MOST_SAID = 300  # characters of the library's own words in an error


class Guide:
    """Where one choice is in its grammar. One thread at a time."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def accept(self, token_ids: Sequence[int]) -> None:
        """The choice went on with these, each of them allowed when it came. BadRequest."""
        self._matcher.consume_tokens(list(token_ids))
        self._check()

    def mask(self) -> bytes:
        """A bit per token that may come next, the lowest bit of a byte first; whole 32-bit words.

        BadRequest where finding them is too much work.
        """
        mask = self._matcher.compute_bitmask()
        self._check()
        return mask

    def _check(self) -> None:
        if self._matcher.is_error():
            raise refusal(self._matcher.get_error())


class Grammars:
    """Thread-safe. `read` gives the tokenizer as JSON, once: that and what is made of it takes a
    second for a large one, so load() may do it before the first grammar comes."""

    def __init__(
        self, read: Callable[[], str], *, vocab_size: int, eos_token_ids: Sequence[int]
    ) -> None:
        self._read = read
        self._vocab_size = vocab_size
        self.eos_token_ids = tuple(eos_token_ids)
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def load(self) -> None:
        """Read the tokenizer now, so that the first grammar need not wait for it."""
        with self._lock:
            self._loaded()

    def guide(self, grammar: str, token_ids: Sequence[int] = ()) -> Guide:
        """Of a choice that has these tokens already. BadRequest for what is no grammar."""
        guide = Guide(self._matcher(grammar).deep_copy())
        guide.accept(token_ids)
        return guide

    def _matcher(self, grammar: str) -> LLMatcher:
        """At its beginning; those used last are kept."""
        with self._lock:
            found = self._compiled.pop(grammar, None) or self._compile(grammar)
            self._compiled[grammar] = found
            if len(self._compiled) > _REMEMBERED:
                self._compiled.popitem(last=False)
            return found

    def _compile(self, grammar: str) -> LLMatcher:
        if not self.eos_token_ids:
            raise BadRequest(
                "the answer's form: this model has no token that ends an answer", code="grammar"
            )
        matcher = LLMatcher(self._loaded(), grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise refusal(matcher.get_error())
        return matcher

    def _loaded(self) -> LLTokenizer:
        if self._tokenizer is None:
            self._tokenizer = LLTokenizer(
                self._read(), n_vocab=self._vocab_size, eos_token=list(self.eos_token_ids)
            )
        return self._tokenizer


def refusal(words: str) -> BadRequest:
    """What the library says against a grammar, in one line."""
    return BadRequest(f"the answer's form: {' '.join(words.split())[:_MOST_SAID]}", code="grammar")


def no_grammars() -> Grammars:
    """Of a model whose tokenizer nobody gave: every grammar is refused."""
    return Grammars(str, vocab_size=0, eos_token_ids=())
