"""Where one JSON value ends, in text that arrives in pieces."""

from __future__ import annotations

SPACE = " \t\r\n"


class Value:
    """Finds the end of a value without judging it. A `<` outside of strings ends it, too."""

    def __init__(self) -> None:
        self.ended = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def take(self, text: str) -> int:
        """How many characters of the text belong to it."""
        for at, character in enumerate(text):
            if self._in_string:
                self._take_in_string(character)
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character == "<" or (not self._depth and character in ",:}]" + SPACE):
                self.ended = True
                return at
            elif character in "}]":
                self._depth -= 1
                self.ended = not self._depth
            if self.ended:
                return at + 1
        return len(text)

    def _take_in_string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
            self.ended = not self._depth
