"""A worker process: the I/O thread owns the sockets, this thread owns torch and all decisions."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Sequence
from typing import cast

from epd.config import Config
from epd.errors import EpdError
from epd.observe import setup
from epd.wire.inbox import Inbox
from epd.workers.ready import say_error, say_ready
from epd.workers.seats import Seat, build_seats

log = logging.getLogger(__name__)

INBOX_EVENTS = 10_000
TICK_S = 0.25
RETRY_S = 0.002


def run_worker(role: str, config: Config, *, ready_fd: int | None) -> int:
    """Build the role's seats, register, serve, leave."""
    setup(config.log_level, config.name or role, config.log_format)
    inbox = Inbox(capacity=INBOX_EVENTS)
    worker = Worker(inbox)
    worker.catch_signals()
    try:
        worker.seats = build_seats(role, config, inbox)
        worker.register(ready_fd)
        worker.run()
    except EpdError as error:
        log.error("%s", error.message)
        say_error(ready_fd if not worker.was_ready else None, error.message)
        return 2
    finally:
        worker.close()
    return 0


class Worker:
    """The step loop over the seats of one process (more than one only in the engine process)."""

    def __init__(self, inbox: Inbox) -> None:
        self.seats: Sequence[Seat] = ()
        self.stopping = False
        self.was_ready = False
        self._inbox = inbox
        self._ticked = 0.0

    def catch_signals(self) -> None:
        """SIGTERM and SIGINT end the loop; work in hand ends with the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopping = True
        self._inbox.wake()

    def register(self, ready_fd: int | None) -> None:
        """Take part until every gateway has said welcome, then tell the parent."""
        for seat in self.seats:
            seat.links.start()
        while not self.stopping and not all(seat.station.welcome for seat in self.seats):
            self._turn()
        if not self.stopping:
            say_ready(ready_fd, control=[seat.links.control for seat in self.seats])
            self.was_ready = True
            log.info("ready host=%s", socket.gethostname())

    def run(self) -> None:
        """Until stopped."""
        while not self.stopping:
            self._turn()

    def _turn(self) -> None:
        busy = any(seat.core.has_work for seat in self.seats)
        stuck = any(seat.core.stuck for seat in self.seats)
        timeout = RETRY_S if stuck else TICK_S
        for entry in self._inbox.take(wait=not busy, timeout=timeout):
            seat, event = cast(tuple[Seat, object], entry)
            seat.station.handle(event)
        for seat in self.seats:
            seat.pulse.step_began = time.monotonic()
            seat.core.step()
            seat.pulse.step_began = None
            seat.station.settle()
            seat.pulse.gauges = {**seat.core.gauges(), **seat.counters()}
        self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked >= TICK_S:
            self._ticked = now
            for seat in self.seats:
                seat.station.tick()

    def close(self) -> None:
        """Say goodbye, then free sockets, threads and shared memory."""
        for seat in self.seats:
            seat.station.leave()
            seat.links.close()
            seat.core.close()
