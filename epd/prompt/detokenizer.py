"""Turns generated ids into text as they come, without ever showing half a character."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from tokenizers import Tokenizer

from epd.prompt.stops import StopStrings

_BROKEN = "\ufffd"  # how a decoder shows bytes that are no character (yet)
_WORDS = 1 << 15  # tokens whose text is remembered
_MOST_HELD = 16  # tokens; the bytes of one character never need so many


class Detokenizer:
    """One answer's text. Special tokens are skipped, a stop string is cut off, unless they are
    to be shown.

    `num_tokens` counts the ids taken so far, up to the one that completed a stop string: `stopped`
    says that there was one, and later ids are ignored. No stop string is looked for in the text of
    the first `min_tokens` ids.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stops: Sequence[str] = (),
        min_tokens: int = 0,
        shows_special: bool = False,
        shows_stop: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._min_tokens = min_tokens
        added = {} if shows_special else tokenizer.get_added_tokens_decoder()
        self._skipped = {i for i, token in added.items() if token.special}
        self._stops = StopStrings(stops, shows=shows_stop)
        # The last shown tokens give their followers context: some decoders drop a first space.
        self._shown: list[int] = []
        self._waiting: list[int] = []
        self.num_tokens = 0

    @property
    def stopped(self) -> bool:
        """A stop string was found."""
        return self._stops.found is not None

    def add(self, token_ids: Iterable[int]) -> str:
        """Text that these ids complete."""
        pieces: list[str] = []
        for token_id in token_ids:
            if self.stopped:
                break
            self.num_tokens += 1
            if token_id not in self._skipped:
                self._waiting.append(token_id)
                text = self._settled()
                early = self.num_tokens <= self._min_tokens
                pieces.append(text if early else self._stops.feed(text))
        return "".join(pieces)

    def finish(self) -> str:
        """The rest, when no more ids come: what waited for its bytes or for a stop string."""
        if self.stopped:
            return ""
        return self._stops.feed(self._settled(at_end=True)) + self._stops.finish()

    def _settled(self, *, at_end: bool = False) -> str:
        """Text of the waiting ids, once it cannot change with the next one."""
        if not self._waiting:
            return ""
        before = self._context()
        text = self._decode(self._shown + self._waiting)
        if text.endswith(_BROKEN) and not at_end and len(self._waiting) < _MOST_HELD:
            return ""
        if len(text) > len(before):  # else these ids print nothing: keep the older context
            self._shown = self._waiting
        else:
            self._shown += self._waiting
        self._waiting = []
        return text[len(before) :]

    def _context(self) -> str:
        """Text of the shown ids alone, by heart where that is one token, as it nearly always is."""
        alone = len(self._shown) == 1
        return _word(self._tokenizer, self._shown[0]) if alone else self._decode(self._shown)

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)


@lru_cache(_WORDS)
def _word(tokenizer: Tokenizer, token_id: int) -> str:
    return str(tokenizer.decode([token_id], skip_special_tokens=False))
