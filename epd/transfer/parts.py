"""Numbers under which other ranks keep their parts of what was staged. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator


class Parts:
    """By number, whom they are for; `ended` is called when it is given back or that one is lost."""

    def __init__(self, numbers: Iterator[int], ended: Callable[[int], None]) -> None:
        self._numbers = numbers
        self._ended = ended
        self._to: dict[int, str] = {}

    def lend(self, to: str) -> int:
        """A number that nothing else has."""
        number = next(self._numbers)
        self._to[number] = to
        return number

    def give_back(self, number: int, *, by: str) -> bool:
        """They are not needed any more. False: they were not lent to that one."""
        if self._to.get(number) != by:
            return False
        del self._to[number]
        self._ended(number)
        return True

    def lost(self, name: str) -> None:
        """What was lent to this receiver is not any more."""
        for number in [number for number, to in self._to.items() if to == name]:
            self.give_back(number, by=name)
