"""Starts the processes of a local cluster, restarts what dies, and stops them all in order.

One thread, one selector: it waits for the children's ready lines, output and ends at once, so that
none of them can hold up another. It knows commands and pipes, not what the children do.
"""

from __future__ import annotations

import itertools
import logging
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from epd.cli.child import Child, ChildSpec
from epd.errors import Unavailable

log = logging.getLogger("epd.serve")

TICK_S = 0.1  # how soon a signal or an end that closed no pipe is seen
RESTART_WINDOW_S = 60.0
FAILED_START_GRACE_S = 3.0
SILENT_GRACE_S = 2.0

Ready = dict[str, dict[str, Any]]


class StopSignals:
    """Counts SIGINT, SIGTERM and SIGHUP while it is entered. Main thread only."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started by nohup
            self._before[number] = signal.signal(number, self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _seen(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


class Supervisor:
    """Children are started in the order of `specs`, all at once, and stopped role by role in it.

    `on_ready` gets every child's ready line, by name, once all have said theirs. The end of
    `parent_fd`, a pipe that whoever started this holds open, is a stop signal.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        stop: StopSignals,
        *,
        on_ready: Callable[[Ready], None],
        start_timeout_s: float,
        stop_grace_s: float,
        max_restarts: int,
        parent_fd: int | None = None,
    ) -> None:
        self._specs = specs
        self._stop = stop
        self._on_ready = on_ready
        self._start_timeout_s = start_timeout_s
        self._stop_grace_s = stop_grace_s
        self._max_restarts = max_restarts
        self._children: dict[str, Child] = {}
        self._deadlines: dict[str, float] = {}
        self._deaths: deque[float] = deque()
        self._restarted: set[str] = set()
        self._selector = selectors.DefaultSelector()
        self._parent_read, self._parent_write = os.pipe()
        self._serving = False
        if parent_fd is not None:
            self._selector.register(parent_fd, selectors.EVENT_READ, None)

    def run(self) -> int:
        """Until a stop signal (0) or until it cannot go on (1, with the reason logged)."""
        try:
            for spec in self._specs:
                self._start(spec)
            while not self._stop.count:
                self._turn()
        except (Unavailable, OSError) as error:
            log.error("%s", error)
            self._stop_together()
            return 1
        else:
            log.info("stopping")
            self._stop_in_order()
            return 0
        finally:
            self._close()

    # ---- running

    def _start(self, spec: ChildSpec) -> None:
        child = Child(spec, parent_fd=self._parent_read)
        self._children[spec.name] = child
        self._deadlines[spec.name] = child.started + self._start_timeout_s
        for pipe, fd in child.pipes.items():
            self._selector.register(fd, selectors.EVENT_READ, (child, pipe))

    def _turn(self) -> None:
        """Hear what was said, then look at every child; announce the first time all are ready."""
        self._listen(TICK_S)
        for child in list(self._children.values()):
            self._look_at(child)
        if not self._serving and all(child.ready for child in self._children.values()):
            self._serving = True
            self._on_ready({name: child.ready or {} for name, child in self._children.items()})

    def _listen(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._hear_parent(key.fd)
                continue
            child, pipe = key.data
            if child.read(pipe):
                continue
            self._selector.unregister(key.fd)
            if pipe == "ready" and child.ready and child.spec.name in self._restarted:
                log.info("%s is ready again", child.spec.name)
            elif pipe == "ready" and not child.ready:
                # It is dying, most likely: its exit code says more than this end-of-file.
                soon = time.monotonic() + SILENT_GRACE_S
                self._deadlines[child.spec.name] = min(self._deadlines[child.spec.name], soon)

    def _hear_parent(self, fd: int) -> None:
        if not os.read(fd, 64):
            self._selector.unregister(fd)
            self._stop.count += 1

    def _look_at(self, child: Child) -> None:
        name = child.spec.name
        if not child.alive:
            self._forget(child)
            self._ended(child, child.ending())
        elif not child.ready and time.monotonic() > self._deadlines[name]:
            waited = time.monotonic() - child.started
            child.kill()
            self._forget(child)
            self._ended(child, f"not ready after {waited:.0f} s")

    def _ended(self, child: Child, how: str) -> None:
        """Fail while starting up, restart later on, but not for ever.

        A worker that was drained ends with 0: that is no death, however often it happens.
        """
        name = child.spec.name
        if not self._serving:
            raise Unavailable(f"{name} did not start ({how}): {child.last_words()}")
        if child.ready and child.process.returncode == 0:
            log.info("%s has left in good order; starting it again", name)
            self._restart(child.spec)
            return
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - RESTART_WINDOW_S:
            self._deaths.popleft()
        if len(self._deaths) > self._max_restarts:
            raise Unavailable(
                f"{len(self._deaths)} ends within {RESTART_WINDOW_S:.0f} s, the last of {name} "
                f"({how}): {child.last_words()}"
            )
        log.warning("%s (pid %d) ended: %s; starting it again", name, child.process.pid, how)
        self._restart(child.spec)

    def _restart(self, spec: ChildSpec) -> None:
        self._restarted.add(spec.name)
        self._start(spec)

    def _forget(self, child: Child) -> None:
        """Hear its last words and free its pipes."""
        for pipe, fd in child.pipes.items():
            if fd in self._selector.get_map():
                child.read(pipe)
                self._selector.unregister(fd)
        child.close()
        del self._children[child.spec.name]

    # ---- stopping

    def _stop_in_order(self) -> None:
        for _, group in itertools.groupby(self._specs, key=lambda spec: spec.role):
            names = [spec.name for spec in group]
            self._end([self._children[n] for n in names if n in self._children])

    def _stop_together(self) -> None:
        """After a failed start nobody is served: no order to keep, and no time to lose."""
        children = list(self._children.values())
        self._end(children, grace_s=min(FAILED_START_GRACE_S, self._stop_grace_s))

    def _end(self, children: list[Child], *, grace_s: float | None = None) -> None:
        """SIGTERM, then SIGKILL after the grace or at a second stop signal."""
        grace_s = self._stop_grace_s if grace_s is None else grace_s
        deadline = time.monotonic() + grace_s
        for child in children:
            child.terminate()
        while any(child.alive for child in children):
            if time.monotonic() > deadline or self._stop.count > 1:
                break
            self._listen(min(TICK_S, grace_s))
        for child in children:
            if child.alive:
                why = f"did not stop within {grace_s:.1f} s"
                if self._stop.count > 1:
                    why = "was still stopping at a second signal"
                log.warning("%s %s: killed", child.spec.name, why)
                child.kill()
            self._forget(child)

    def _close(self) -> None:
        self._selector.close()
        os.close(self._parent_read)
        os.close(self._parent_write)
