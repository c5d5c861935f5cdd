"""What a token looks like by itself, for those who want to see single tokens."""

from __future__ import annotations

import re
from functools import lru_cache

from tokenizers import Tokenizer

_BROKEN = "\ufffd"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_REMEMBERED = 1 << 16


class TokenTexts:
    """Texts and bytes of one tokenizer's ids. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.text = lru_cache(_REMEMBERED)(self._text)
        self.bytes = lru_cache(_REMEMBERED)(self._bytes)

    def _text(self, token_id: int) -> str:
        """The id decoded alone; "" for ids that the tokenizer does not know."""
        decoded: str = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return decoded

    def _bytes(self, token_id: int) -> tuple[int, ...] | None:
        """Its bytes, also where they are no whole character; None where nobody knows."""
        text = self.text(token_id)
        if _BROKEN not in text:
            return tuple(text.encode())
        token = self._tokenizer.id_to_token(token_id) or ""
        if (match := _BYTE.fullmatch(token)) is not None:
            return (int(match[1], 16),)
        if all(character in _BYTE_OF for character in token):
            return tuple(_BYTE_OF[character] for character in token)
        return None


def _byte_level() -> dict[str, int]:
    """How byte-level tokenizers write bytes: as themselves where printable, else from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in printable]
    shown = {chr(byte): byte for byte in printable}
    return shown | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_level()
