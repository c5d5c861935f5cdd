"""A worker process: the I/O thread owns the sockets, this thread owns torch and all decisions."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import cast

from epd.config import Config
from epd.errors import EpdError
from epd.observe import setup
from epd.wire.inbox import Inbox
from epd.workers.heap import freeze_objects, keep_freed_memory
from epd.workers.kv_plan import planned
from epd.workers.lookup import Lookup
from epd.workers.probes import Probes
from epd.workers.ranks import start_followers
from epd.workers.ready import say_error, say_ready
from epd.workers.seats import Seat, build_seats
from epd.workers.turns import Claims, Turn, Turns

log = logging.getLogger(__name__)

INBOX_EVENTS = 10_000
TICK_S = 0.25
RETRY_S = 0.002
THREAD_TURN_S = 0.0005
"""How long one thread of Python may keep another waiting: sockets must not wait for a step."""


def run_worker(role: str, config: Config, *, ready_fd: int | None) -> int:
    """Build the role's seats, register, serve, leave."""
    setup(config.log_level, config.name or role, config.log_format)
    try:
        config = planned(role, config)
    except EpdError as error:
        return _refused(error, ready_fd)
    followers = start_followers(role, config)
    settle_threads()
    inbox = Inbox(capacity=INBOX_EVENTS)
    lookup = Lookup(config.gateways, config.wire.resolve_s)
    worker = Worker(inbox, config.drain_s)
    worker.catch_signals()
    try:
        worker.probes = Probes(config.probe_dir)
        lookup.start()
        worker.seats = build_seats(role, config, inbox, lookup, followers)
        worker.register(ready_fd)
        worker.run()
    except EpdError as error:
        return _refused(error, None if worker.was_ready else ready_fd)
    finally:
        worker.close()
        lookup.close()
        if followers is not None:
            followers.close()
    return 0


def _refused(error: EpdError, ready_fd: int | None) -> int:
    log.error("%s", error.message)
    say_error(ready_fd, error.message)
    return 2


def settle_threads() -> None:
    """What the threads of this process share: one heap, and the interpreter by turns."""
    keep_freed_memory()
    sys.setswitchinterval(THREAD_TURN_S)


class Worker:
    """The step loop over the seats of one process (more than one only in the engine process).

    It ends at once, or drains first: nothing new comes, and what runs has `drain_s` to finish.
    """

    def __init__(self, inbox: Inbox, drain_s: float) -> None:
        self.seats: Sequence[Seat] = ()
        self.probes = Probes(None)
        self.stopping = False
        self._drain_s = drain_s
        self._drain_wanted = False
        self._drain_until: float | None = None
        self.was_ready = False
        self._inbox = inbox
        self._turns = Turns()
        self._ticked = 0.0

    def catch_signals(self) -> None:
        """SIGTERM drains, SIGINT or a second signal ends the loop at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: object) -> None:
        drains = number == signal.SIGTERM and self.was_ready and self._drain_s > 0
        if drains and not self._drain_wanted:
            self._drain_wanted = True
        else:
            self.stopping = True
        self._inbox.wake()

    def register(self, ready_fd: int | None) -> None:
        """Take part until a gateway has said welcome to every seat, then tell the parent."""
        for seat in self.seats:
            seat.links.start()
        while not self.stopping and not all(seat.station.welcome for seat in self.seats):
            self._turn()
        if not self.stopping:
            freeze_objects()
            say_ready(ready_fd, control=[seat.links.control for seat in self.seats])
            self.was_ready = True
            log.info("ready host=%s", socket.gethostname())

    def run(self) -> None:
        """Until stopped or drained."""
        while not self.stopping and not self._drained(time.monotonic()):
            self._turn()

    def _drained(self, now: float) -> bool:
        """Begins to drain where that is wanted. True: nobody needs this process, or time is up."""
        if self._drain_until is None:
            drain_s = self._asked_to_drain()
            if drain_s is None:
                return False
            log.info("draining for at most %.0f s", drain_s)
            self._drain_until = now + drain_s
            for seat in self.seats:
                seat.station.drain()
        if all(seat.station.drained for seat in self.seats):
            log.info("drained")
            return True
        if now > self._drain_until:
            log.warning("not drained in time: what still runs goes elsewhere")
            return True
        return False

    def _asked_to_drain(self) -> float | None:
        """By a signal, or by an operator at a gateway."""
        if self._drain_wanted:
            return self._drain_s
        asked = [seat.station.drain_asked_ms for seat in self.seats]
        return min((ms / 1000 for ms in asked if ms is not None), default=None)

    def _turn(self) -> None:
        claims = self._see_claims()
        busy = any(any(each) and self._turns.of(place) for place, each in enumerate(claims))
        soon = any(seat.core.stuck or seat.laps.pending for seat in self.seats)
        timeout = RETRY_S if soon else TICK_S
        for entry in self._inbox.take(wait=not busy, timeout=timeout):
            seat, event = cast(tuple[Seat, object], entry)
            seat.station.handle(event)
        for seat in self.seats:
            seat.laps.settle()
        claims = self._see_claims()
        for place, seat in enumerate(self.seats):
            turn = self._turns.of(place)
            if turn is not None:
                self._step(place, turn, timed=any(claims[place]))
                seat.station.settle()
                seat.pulse.gauges = {**seat.core.gauges(), **seat.counters()}
        self._tick()

    def _see_claims(self) -> list[Claims]:
        claims = [seat.core.claims for seat in self.seats]
        self._turns.see(claims)
        return claims

    def _step(self, place: int, turn: Turn, *, timed: bool) -> None:
        """One step of a seat. `timed`: what it takes counts, once the device is through with it."""
        seat = self.seats[place]
        seat.pulse.step_began = time.monotonic()
        if timed and (len(self.seats) > 1 or self._turns.shared):
            lap = seat.laps.begin()
            self._turns.began(place, turn)
            seat.core.step(turn)
            seat.laps.end(lap, lambda seconds, _: self._turns.took(place, seconds))
        else:
            seat.core.step(turn)
        seat.pulse.step_began = None

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked >= TICK_S:
            self._ticked = now
            for seat in self.seats:
                seat.station.tick()
            self.probes.turned(ready=self._takes_work())

    def _takes_work(self) -> bool:
        welcome = all(seat.station.welcome for seat in self.seats)
        return self.was_ready and self._drain_until is None and welcome

    def close(self) -> None:
        """Say goodbye, then free sockets, threads and shared memory."""
        self.probes.close()
        for seat in self.seats:
            seat.station.leave()
            seat.links.close()
            seat.core.close()
