"""Whose work goes into the next step, where one thread steps for streams and for media. Pure.

Work is of two kinds. Media arrive: towers encode them, and then their prompts are prefilled. All
else runs: what generates, and prompts of text. One forward of the towers, or the prompt of a few
pictures, takes as long as dozens of steps of running streams. So what arrives waits while it has
had more than its share of the time: every request counts alike, but while anything runs, what
arrives gets a quarter of the time at least and three quarters at most. What runs never waits.

A device may still be at a step that the thread has left. What that takes is not known yet, so
what arrives waits until it is, and where nothing runs, towers are one step ahead of the device at
most.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

LEAST, MOST = 0.25, 0.75
"""Shares of what arrives."""

MOST_OPEN = 2
"""Steps of a seat that a device may have before it, the one that it is at among them."""


class Claims(NamedTuple):
    """Of a seat: requests that forwards are due of."""

    arriving: int = 0
    running: int = 0


class Turn(Enum):
    """What a step of a seat may do."""

    ALONE = auto()  # no other seat has work
    SHARED = auto()
    HELD = auto()  # as SHARED, but what arrives waits


class Turns:
    """Counts from the moment on from which there is work of both kinds."""

    def __init__(self) -> None:
        self._claims: Sequence[Claims] = ()
        self._asked: defaultdict[int, deque[Claims]] = defaultdict(deque)
        self._arriving_s = self._running_s = 0.0  # time had, over what was due
        self._alone_s = 0.0  # what a step of all that runs took last without media

    def see(self, claims: Sequence[Claims]) -> None:
        """What each seat has now."""
        self._claims = claims
        if not self.shared:
            self._arriving_s = self._running_s = 0.0

    @property
    def shared(self) -> bool:
        """Is there work of both kinds? Then steps are to be timed."""
        return self._arriving > 0 and self._running > 0

    def of(self, place: int) -> Turn | None:
        """What that seat may do now; None: it waits. Without work it may step, too."""
        held = self.shared and self._behind
        if held and not self._claims[place].running:
            return None if self._claims[place].arriving else Turn.HELD
        if len(self._asked[place]) >= MOST_OPEN and place + 1 < len(self._claims):
            return None
        if held:
            return Turn.HELD
        return Turn.ALONE if sum(map(any, self._claims)) < 2 else Turn.SHARED

    def began(self, place: int, turn: Turn) -> None:
        """That seat's step is asked for; took() follows when it is over."""
        claims = self._claims[place]
        self._asked[place].append(claims._replace(arriving=0) if turn is Turn.HELD else claims)

    def took(self, place: int, seconds: float) -> None:
        """The earliest step of that seat that is not over; it counts while there is work of both.

        One with both is charged to media but for what the rest of it takes alone.
        """
        did = self._asked[place].popleft()
        if not self.shared:
            return
        if not did.arriving:
            self._alone_s = seconds
        running = min(seconds, self._alone_s) if did.running else 0.0
        share = min(MOST, max(LEAST, self._arriving / (self._arriving + self._running)))
        self._running_s += running / (1 - share)
        self._arriving_s += (seconds - running) / share

    @property
    def _arriving(self) -> int:
        """A request whose items wait for a tower may wait for its prefill too."""
        return max((claims.arriving for claims in self._claims), default=0)

    @property
    def _running(self) -> int:
        return sum(claims.running for claims in self._claims)

    @property
    def _behind(self) -> bool:
        """Has what runs had less than was due, or may it have?"""
        at_some = any(did.arriving for steps in self._asked.values() for did in steps)
        return at_some or self._arriving_s > self._running_s
