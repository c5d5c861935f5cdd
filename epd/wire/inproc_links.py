"""Links inside one process: the same rules and threads, no sockets.

A lane is read straight from its sender's queue by the receiver's I/O thread.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Condition, Lock
from typing import Final

from epd.errors import ProtocolError
from epd.wire.base import BaseLinks, Lane, Peer
from epd.wire.links import Buffer, OnIo, Sink
from epd.wire.reception import RETRY_S

CONTROL_TURN: Final = 64
BULK_TURN: Final = 8
PREFIX: Final = "inproc://"


@dataclass(eq=False, slots=True)
class _Wire:
    """One lane on its way to an address."""

    lane: Lane
    identity: bytes
    owner: InprocLinks | None = None
    peer: Peer | None = None
    connected: bool = False


class Hub:
    """Joins the InprocLinks of one process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._nodes: dict[str, InprocLinks] = {}
        self._wires: dict[str, list[_Wire]] = {}

    def inject(self, address: str, identity: bytes, *messages: tuple[bytes, ...]) -> None:
        """Put any bytes on the wire to `address`, as a stranger's socket would."""
        self._attach(_Wire(Lane(address, deque(messages)), identity))

    def _bind(self, address: str, node: InprocLinks) -> None:
        with self._lock:
            self._nodes[address] = node
            for wire in self._wires.get(address, ()):
                wire.connected = True

    def _unbind(self, address: str) -> None:
        with self._lock:
            del self._nodes[address]
            cut = [wire for wire in self._wires.get(address, ()) if wire.connected]
            self._wires[address] = [w for w in self._wires.get(address, ()) if not w.connected]
        for wire in cut:
            if wire.owner is not None:
                wire.owner._cut(wire)

    def _attach(self, wire: _Wire) -> None:
        with self._lock:
            node = self._nodes.get(wire.lane.address)
            wire.connected = node is not None
            self._wires.setdefault(wire.lane.address, []).append(wire)
        if node is not None:
            node._ring()

    def _detach(self, lane: Lane) -> None:
        with self._lock:
            wires = self._wires.get(lane.address, [])
            self._wires[lane.address] = [wire for wire in wires if wire.lane is not lane]

    def _wires_to(self, address: str) -> list[_Wire]:
        with self._lock:
            return list(self._wires.get(address, ()))

    def _ring(self, address: str) -> None:
        with self._lock:
            node = self._nodes.get(address)
        if node is not None:
            node._ring()


class InprocLinks(BaseLinks):
    """Links between nodes of one process, joined by a hub."""

    def __init__(
        self,
        name: str,
        hub: Hub,
        inbox: Sink,
        *,
        on_io: OnIo | None = None,
        high_water: int = 1000,
        max_message_bytes: int = 64 << 20,
        grace_s: float = 5.0,
    ) -> None:
        super().__init__(
            name,
            inbox,
            on_io=on_io,
            high_water=high_water,
            max_message_bytes=max_message_bytes,
            grace_s=grace_s,
        )
        self._hub = hub
        self._bell = Condition()
        self._rung = False
        self._cut_wires: deque[_Wire] = deque()
        self.control = f"{PREFIX}{name}.c"
        self.bulk = f"{PREFIX}{name}.b"
        hub._bind(self.control, self)
        hub._bind(self.bulk, self)

    def _check_address(self, address: str) -> None:
        if not address.startswith(PREFIX):
            raise ProtocolError("address", "not an address inside this process")

    def _wake(self) -> None:
        self._ring()

    def _ring(self) -> None:
        with self._bell:
            self._rung = True
            self._bell.notify()

    def _cut(self, wire: _Wire) -> None:
        self._cut_wires.append(wire)
        self._ring()

    def _turn(self) -> None:
        self._obey()
        self._flush_lanes()
        self.reception.hand_over()
        busy = self._read(self.control, CONTROL_TURN, bulk=False)
        busy = self._read(self.bulk, BULK_TURN, bulk=True) or busy
        while self._cut_wires:
            wire = self._cut_wires.popleft()
            if wire.peer is not None:
                self._lose(wire.peer, "connection reset")
        self._wait(0.0 if busy else self._patience())

    def _patience(self) -> float | None:
        """While closing, what is queued is taken by others, who do not ring here for that."""
        patience = self._patience_s()
        return patience if self._stop_at is None else min(RETRY_S, patience or 0.0)

    def _wait(self, timeout: float | None) -> None:
        with self._bell:
            self._bell.wait_for(lambda: self._rung, timeout)
            self._rung = False

    def _obey(self) -> None:
        while self._opened:
            peer, lane = self._opened.popleft()
            self._hub._attach(_Wire(lane, self._next_identity(), self, peer))
        while self._closed_peers:
            for lane in self._closed_peers.popleft().lanes():
                self._hub._detach(lane)
                lane.queue.clear()

    def _flush_lanes(self) -> None:
        """Tell the receivers; they take from the lanes themselves."""
        while self._to_flush:
            lane = self._to_flush.popleft()
            with self._lock:
                lane.scheduled = False
            self._hub._ring(lane.address)

    def _read(self, address: str, turn: int, *, bulk: bool) -> bool:
        """Take a turn's worth from every sender's lane; whether there was any."""
        moved = False
        for wire in self._hub._wires_to(address):
            for _ in range(turn):
                if not (self.reception.takes_bulk if bulk else self.reception.takes_control):
                    break
                parts = self._pop(wire.lane)
                if parts is None:
                    break
                moved = True
                if wire.owner is not None:
                    wire.owner._count_sent(parts)
                self.reception.receive(wire.identity, parts, bulk=bulk)
        return moved

    def _pop(self, lane: Lane) -> tuple[Buffer, ...] | None:
        try:
            return lane.queue.popleft()
        except IndexError:
            return None

    def _free(self) -> None:
        for peer in [*self._peers.values(), *self._closed_peers]:
            for lane in peer.lanes():
                self._hub._detach(lane)
                lane.queue.clear()
        self._hub._unbind(self.control)
        self._hub._unbind(self.bulk)
