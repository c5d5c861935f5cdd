"""The ranks of one worker as processes: rank 0 is the worker, the others are copies that it makes.

They live and die together. Each end of the socket between a follower and rank 0 tells the other of
its death, which ends the other at once, whatever it waits for: whoever watches rank 0 starts the
whole worker again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import setproctitle

from epd.config import Config
from epd.engine.ranks.orders import Order, from_row, to_row
from epd.errors import EpdError
from epd.models.group import Group, Ranks
from epd.models.placement import resolve_device
from epd.observe import setup
from epd.workers.forked import Forked

log = logging.getLogger(__name__)

NUMBER = array("q").itemsize
LEAVE_S = 5.0
"""A follower whose orders have ended is gone by then, or is killed."""

DIED = 70
"""Exit code of a worker that lost a rank."""


class Followers:
    """Ranks 1 and up of this worker. Made before this process starts a thread or touches a GPU."""

    def __init__(self, role: str, config: Config) -> None:
        self.size = config.placement.of(role).tp
        self._folder = Path(tempfile.mkdtemp(prefix="epd-ranks-"))
        self._children: list[Forked] = []
        self._sockets: list[socket.socket] = []
        self._closing = False
        for rank in range(1, self.size):
            ours, theirs = socket.socketpair()
            run = partial(follow, role, config, rank, theirs.fileno(), self.meeting)
            self._children.append(Forked(run, keep=(theirs.fileno(),), share_output=True))
            theirs.close()
            self._sockets.append(ours)
        for rank, ours in enumerate(self._sockets, 1):
            threading.Thread(
                target=self._watch, args=(rank, ours), name=f"rank {rank}", daemon=True
            ).start()

    @property
    def meeting(self) -> Path:
        """The file by which the ranks find each other."""
        return self._folder / "meeting"

    def join(self, device: str) -> Group:
        """This process as rank 0, once all ranks are there."""
        group = Ranks(0, self.size, self.meeting, device)
        shutil.rmtree(self._folder, ignore_errors=True)
        return group

    def send(self, order: Order) -> None:
        """To every follower, in order."""
        row = to_row(order)
        message = array("q", [len(row), *row]).tobytes()
        for ours in self._sockets:
            ours.sendall(message)

    def _watch(self, rank: int, ours: socket.socket) -> None:
        """A follower says nothing while it lives."""
        with contextlib.suppress(OSError):
            while ours.recv(1):
                pass
        if not self._closing:
            log.error("rank %d of %d has ended, and this worker with it", rank, self.size)
            os._exit(DIED)

    def close(self) -> None:
        """No more orders: let the followers end, and see that they do."""
        self._closing = True
        for ours in self._sockets:
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
        for child in self._children:
            timer = threading.Timer(LEAVE_S, child.kill)
            timer.start()
            child.wait()
            timer.cancel()
        for ours in self._sockets:
            ours.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def start_followers(role: str, config: Config) -> Followers | None:
    """Those that a worker of this role has besides rank 0; None where it is alone."""
    return Followers(role, config) if config.placement.of(role).tp > 1 else None


def follow(role: str, config: Config, rank: int, fd: int, meeting: Path) -> int:
    """What a follower does from its first line to its last; its exit code."""
    setproctitle.setproctitle(f"epd: rank {rank} of {config.name or role}")
    setup(config.log_level, f"{config.name or role}.{rank}", config.log_format)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # rank 0 decides when this worker ends
    with socket.socket(fileno=fd) as leader:
        orders = _Orders(leader)
        try:
            _serve(role, config, rank, meeting, orders)
        except EpdError as error:
            log.error("%s", error.message)
            return 2
    return 0


def _serve(role: str, config: Config, rank: int, meeting: Path, orders: _Orders) -> None:
    from epd.engine.backend import backend_for
    from epd.engine.ranks.following import Follower
    from epd.models.language import load_language
    from epd.workers.memory import check_worker
    from epd.workers.seats import limit_threads, read_model

    limit_threads(config)
    checkpoint, dtype = read_model(config)
    usual = resolve_device(config.device)
    device = resolve_device(config.placement.of(role).device(rank, usual))
    check_worker(role, config, checkpoint, device=device, rank=rank)
    group = Ranks(rank, config.placement.of(role).tp, meeting, device)
    language = config.language
    part = load_language(checkpoint, device=device, dtype=dtype, fused=language.fused, group=group)
    Follower(part, group, backend_for(part, language)).follow(orders)


class _Orders:
    """Rank 0's orders as they come. A thread reads them, so that its death is never overlooked."""

    def __init__(self, leader: socket.socket) -> None:
        self._leader = leader
        self._rows: SimpleQueue[Sequence[int]] = SimpleQueue()
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def __iter__(self) -> Iterator[Order]:
        while True:
            yield from_row(self._rows.get())

    def _read(self) -> None:
        """Ends this process with rank 0's side of the socket, even in the middle of a sum."""
        with contextlib.suppress(OSError), self._leader.makefile("rb") as stream:
            while header := stream.read(NUMBER):
                (length,) = _numbers(header)
                self._rows.put(_numbers(stream.read(length * NUMBER)))
        os._exit(0)


def _numbers(data: bytes) -> Sequence[int]:
    found = array("q")
    found.frombytes(data)
    return found
