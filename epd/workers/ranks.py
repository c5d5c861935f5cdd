"""The ranks of one worker as processes: rank 0 is the worker, the others are copies that it makes.

Rank 0 orders over a socket; over the same one a follower says what memory and sockets of its own
other workers may know of, answers tasks, and counts.

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
from queue import Empty, SimpleQueue

import setproctitle

from epd.config import Config
from epd.engine.ranks.orders import Order, from_row, to_row
from epd.engine.ranks.tasks import Tasks
from epd.errors import EpdError, InternalError, Unavailable
from epd.models.group import Group, Ranks
from epd.models.placement import resolve_device
from epd.observe import setup
from epd.types import Rank
from epd.workers.forked import Forked
from epd.workers.introductions import introduced, packed, unpacked
from epd.workers.rank_ends import RankEnds, rank_ends
from epd.workers.rank_links import rank_links

log = logging.getLogger(__name__)

NUMBER = array("q").itemsize
LOOK_S = 0.001
"""How often a follower looks whether a GPU is done with what it copies or reads."""

LEAVE_S = 5.0
"""A follower whose orders have ended is gone by then, or is killed."""

FACTS, COUNTS = -1, -2
"""Stand where a task's number does, before what a follower says of itself, and bytes of KV that it
has sent and taken."""

TAKEN_BACK, BROKEN = b"u", b"e"
"""Before a task's error: whether the owner took its memory back, or something is wrong."""

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
        self.tasks = Tasks(self.size - 1)
        self._told: list[SimpleQueue[Rank]] = [SimpleQueue() for _ in range(1, self.size)]
        self._counts: dict[int, Sequence[int]] = {}
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

    def ranks(self) -> tuple[Rank, ...]:
        """What they lend and read with; waits until they have said so. Once."""
        return tuple(told.get() for told in self._told)

    def gauges(self) -> dict[str, int]:
        """What they counted, together."""
        counts = list(self._counts.values())
        return {
            "rank_bytes_sent": sum(sent for sent, _ in counts),
            "rank_bytes_taken": sum(taken for _, taken in counts),
        }

    def _watch(self, rank: int, ours: socket.socket) -> None:
        """What a follower says while it lives."""
        with contextlib.suppress(OSError), ours.makefile("rb") as stream:
            while header := stream.read(2 * NUMBER):
                number, length = _numbers(header)
                self._hear(rank, number, stream.read(length))
        if not self._closing:
            log.error("rank %d of %d has ended, and this worker with it", rank, self.size)
            os._exit(DIED)

    def _hear(self, rank: int, number: int, said: bytes) -> None:
        if number == FACTS:
            member = unpacked(said)
            (facts,) = member.ranks
            self._told[rank - 1].put(facts)
        elif number == COUNTS:
            self._counts[rank] = _numbers(said)
        else:
            kind = Unavailable if said[:1] == TAKEN_BACK else InternalError
            self.tasks.answered(number, kind(said[1:].decode()) if said else None)

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
        try:
            _serve(role, config, rank, meeting, leader)
        except EpdError as error:
            log.error("%s", error.message)
            return 2
    return 0


def _serve(role: str, config: Config, rank: int, meeting: Path, leader: socket.socket) -> None:
    orders = _Orders(leader)  # from now on rank 0's death is seen
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
    links = rank_links(role, config, rank)  # rank 0, which has joined, has its ports
    ends = rank_ends(role, config, device, rank, partial(_answer, leader), links)
    if links is not None:
        links.start()
    _say(leader, FACTS, packed(introduced(f"rank {rank}", ends.facts)))
    orders.meanwhile = ends
    Follower(part, group, backend_for(part, language), ends).follow(orders)


def _answer(leader: socket.socket, task: int, error: EpdError | None) -> None:
    if error is None:
        _say(leader, task, b"")
    else:
        kind = TAKEN_BACK if isinstance(error, Unavailable) else BROKEN
        _say(leader, task, kind + error.message.encode())


def _say(leader: socket.socket, number: int, said: bytes) -> None:
    leader.sendall(array("q", [number, len(said)]).tobytes() + said)


class _Orders:
    """Rank 0's orders as they come. A thread reads them, so that its death is never overlooked."""

    def __init__(self, leader: socket.socket) -> None:
        self._leader = leader
        self._rows: SimpleQueue[Sequence[int]] = SimpleQueue()
        self.meanwhile: RankEnds | None = None  # what is to be looked at between orders
        self._counts: tuple[int, int] = 0, 0
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def __iter__(self) -> Iterator[Order]:
        while True:
            ends = self.meanwhile
            waits = ends is not None and ends.waits
            with contextlib.suppress(Empty):
                yield from_row(self._rows.get(timeout=LOOK_S if waits else None))
            if ends is not None:
                ends.settle()
                self._count(ends)

    def _count(self, ends: RankEnds) -> None:
        counts = ends.bytes_sent, ends.bytes_taken
        if counts != self._counts:
            self._counts = counts
            _say(self._leader, COUNTS, array("q", counts).tobytes())

    def _read(self) -> None:
        """Ends this process with rank 0's side of the socket, even in the middle of a sum."""
        with contextlib.suppress(OSError), self._leader.makefile("rb") as stream:
            while header := stream.read(NUMBER):
                (length,) = _numbers(header)
                self._rows.put(_numbers(stream.read(length * NUMBER)))
        if self.meanwhile is not None:
            self.meanwhile.leave()
        os._exit(0)


def _numbers(data: bytes) -> Sequence[int]:
    found = array("q")
    found.frombytes(data)
    return found
