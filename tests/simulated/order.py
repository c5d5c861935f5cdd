"""What a device has to have done before what: vector clocks of streams, and who used which bytes.

Pure: streams, rooms and times are numbers. All threads of the host count as one stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

HOST: Final = -1

Clock = dict[int, int]
"""Stream -> how much of it is known to be done."""


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes [begin, end) of a room, read or written."""

    room: int
    begin: int
    end: int
    writes: bool


@dataclass(frozen=True, slots=True)
class _Past:
    begin: int
    end: int
    writes: bool
    stream: int
    time: int
    by: str


class Order:
    """Of one process. `faults`: what a card might do in another order, in words."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._clocks: dict[int, Clock] = {}
        self._past: dict[int, list[_Past]] = {}
        self._lent_by: dict[int, int] = {}
        self._told: set[tuple[int, int]] = set()

    def clock(self, stream: int) -> Clock:
        """What is known where the stream is now; a copy, as an event has it."""
        return dict(self._clocks.get(stream, {}))

    def learn(self, stream: int, clock: Clock) -> None:
        """What the stream does from now on comes after all that the clock says."""
        own = self._clocks.setdefault(stream, {})
        for other, time in clock.items():
            own[other] = max(own.get(other, 0), time)

    def known(self, stream: int, time: int, *, to: int = HOST) -> bool:
        """Has `to` seen that the stream came so far?"""
        return self._clocks.get(to, {}).get(stream, 0) >= time

    def lend(self, room: int, stream: int) -> None:
        """The allocator gives new memory to work of this stream."""
        self._lent_by[room] = stream

    def used_by(self, room: int, stream: int) -> None:
        """The allocator is told that the stream uses the room, too."""
        self._told.add((room, stream))

    def launch(self, stream: int, uses: Iterable[Use], by: str) -> int:
        """Work of a stream -> its time there. A race with earlier work is a fault."""
        self.learn(stream, self._clocks.get(HOST, {}))
        own = self._clocks.setdefault(stream, {})
        time = own[stream] = own.get(stream, 0) + 1
        for use in uses:
            past = self._past.setdefault(use.room, [])
            for earlier in past:
                if _clash(earlier, use) and own.get(earlier.stream, 0) < earlier.time:
                    self.faults.append(f"{by} and {earlier.by}: no order between streams")
            now = _Past(use.begin, use.end, use.writes, stream, time, by)
            past[:] = [each for each in past if not _covers(now, each, own)]
            past.append(now)
        return time

    def give_back(self, room: int) -> None:
        """Nobody holds the room: the stream that it was lent to may get it anew at once."""
        lender = self._lent_by.pop(room, None)
        for past in self._past.pop(room, []):
            if lender is None or past.stream == lender or (room, past.stream) in self._told:
                continue
            if not any(self.known(past.stream, past.time, to=who) for who in (lender, HOST)):
                self.faults.append(f"{past.by}: its memory is given back while it may still run")
        self._told = {each for each in self._told if each[0] != room}


def _clash(earlier: _Past, use: Use) -> bool:
    overlap = earlier.begin < use.end and use.begin < earlier.end
    return overlap and (earlier.writes or use.writes)


def _covers(now: _Past, earlier: _Past, own: Clock) -> bool:
    """Does whoever comes after the new one come after the earlier one, as far as these bytes go?"""
    within = now.begin <= earlier.begin and earlier.end <= now.end
    ordered = own.get(earlier.stream, 0) >= earlier.time
    return within and ordered and (now.writes or not earlier.writes)
