"""Marks in text that arrives in pieces, and the white space around what they enclose."""

from __future__ import annotations


def cut(text: str, mark: str) -> tuple[str, bool, str]:
    """What stands before the mark, whether the mark is there, and what follows it.

    Where it is not there, the last part is the end of the text that may become the mark.
    """
    before, found, after = text.partition(mark)
    if found:
        return before, True, after
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-size:]):
            return text[:-size], False, text[-size:]
    return text, False, ""


def may_become(text: str, mark: str) -> bool:
    """Whether the text is a beginning of the mark, but not all of it."""
    return len(text) < len(mark) and mark.startswith(text)


class Trimmed:
    """Text between marks, without the white space that separates it from them.

    White space is held until it is known whether a mark follows. `fresh`: a mark stands before it.
    """

    def __init__(self, *, fresh: bool) -> None:
        self._fresh = fresh
        self._space = ""

    @property
    def passes(self) -> bool:
        """Nothing is held, nor to be taken away from what comes."""
        return not self._fresh and not self._space

    def add(self, text: str) -> str:
        """What can be shown."""
        if self._fresh:
            text = text.lstrip()
            self._fresh = not text
        text = self._space + text
        shown = text.rstrip()
        self._space = text[len(shown) :]
        return shown

    def end(self) -> str:
        """No mark follows: the white space at the end belongs to the text."""
        space, self._space = self._space, ""
        return space

    def mark(self) -> None:
        """A mark follows."""
        self._fresh, self._space = True, ""
