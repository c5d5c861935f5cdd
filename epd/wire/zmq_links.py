"""Links over ZeroMQ: one context and one I/O thread per node own every socket.

A node receives on two ROUTERs and never sends on them; it sends on a DEALER per lane and never
receives on it. A DEALER's monitor tells when its peer is gone.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from epd.config.sections import WireConfig
from epd.errors import ConfigError
from epd.wire import curve
from epd.wire.addresses import (
    Listen,
    ipc_endpoint,
    is_listening,
    leaves_host,
    parse_listen,
    tcp_endpoint,
)
from epd.wire.base import BaseLinks, Lane, Peer
from epd.wire.links import OnIo, Sink

log = logging.getLogger(__name__)

Socket = zmq.Socket[bytes]

CONTROL_TURN: Final = 64  # messages read or sent per socket before the others get their turn
BULK_TURN: Final = 8
BULK_HIGH_WATER: Final = 16  # chunks inside ZeroMQ per lane and end; more wait in the lane's queue
HANDSHAKE_MS: Final = 5000
PROBES: Final = 3  # that a silent peer may leave unanswered, one a second

_LOST = zmq.EVENT_DISCONNECTED
_REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_WATCHED = _LOST | _REFUSED | zmq.EVENT_HANDSHAKE_SUCCEEDED


class _Sender:
    """One lane's DEALER with its monitor."""

    def __init__(self, socket: Socket, peer: Peer, lane: Lane) -> None:
        self.socket = socket
        self.peer = peer
        self.lane = lane
        self.monitor: Socket = socket.get_monitor_socket(_WATCHED)
        self.connected = False
        self.opened_at = time.monotonic()

    @property
    def waits(self) -> bool:
        """A known peer is sent something and has never been there to take it."""
        return bool(self.lane.queue and self.peer.incarnation) and not self.connected

    def close(self, *, linger_ms: int) -> None:
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=linger_ms)


class ZmqLinks(BaseLinks):
    """Links between processes, over ipc or tcp. Bound when built; receives after start()."""

    def __init__(
        self,
        name: str,
        listen: str,
        config: WireConfig,
        inbox: Sink,
        *,
        on_io: OnIo | None = None,
        grace_s: float = 5.0,
    ) -> None:
        super().__init__(
            name,
            inbox,
            on_io=on_io,
            high_water=config.high_water,
            max_message_bytes=config.max_message_bytes,
            grace_s=grace_s,
        )
        self._config = config
        self._keys = curve.load(config.curve_dir) if config.curve_dir is not None else None
        place = parse_listen(listen)
        if place.leaves_host:
            self._check_open(listen)
        self._senders: dict[Lane, _Sender] = {}
        self._connecting: dict[Lane, _Sender] = {}
        self._handlers: dict[Any, Callable[[], None]] = {}
        self._reading: dict[Socket, bool] = {}
        self._files: list[Path] = []
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = zmq.Poller()
        self._context: zmq.Context[Socket] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 8192)
        self._context.set(zmq.IO_THREADS, config.bulk_connections if place.leaves_host else 1)
        self._context.linger = 0
        try:
            self._bind(place)
        except BaseException:
            self._free()
            raise

    # ---- any thread

    def _check_open(self, address: str) -> None:
        """Only with keys, or with the operator's word, does anything leave the machine."""
        if self._keys is None and not self._config.insecure:
            raise ConfigError(
                f"{address} leaves this machine: set wire.curve_dir, or wire.insecure=true to "
                "accept that anybody who reaches it can read and forge messages"
            )

    def _check_address(self, address: str) -> None:
        if leaves_host(address):
            self._check_open(address)

    def _wake(self) -> None:
        if self._waker >= 0:
            os.eventfd_write(self._waker, 1)

    def _num_bulk(self, address: str) -> int:
        return self._config.bulk_connections if address.startswith("tcp://") else 1

    # ---- at start

    def _bind(self, place: Listen) -> None:
        if place.leaves_host and self._keys is None:
            log.warning("%s: sockets on %s are open to its network", self.name, place.place)
        if self._keys is not None:
            self._zap: Socket = self._context.socket(zmq.REP)
            self._zap.bind(curve.ZAP_ADDRESS)
            self._watch(self._zap, self._authenticate)
        self._control = self._router(place, self._read_control, self._config.high_water)
        self._bulk = self._router(place, self._read_bulk, BULK_HIGH_WATER)
        if place.transport == "ipc":
            self.control = self._bind_ipc(self._control, place.place, f"{self.name}.c")
            self.bulk = self._bind_ipc(self._bulk, place.place, f"{self.name}.b")
        else:
            self.control = self._bind_tcp(self._control, place, place.ports[:-1])
            self.bulk = self._bind_tcp(self._bulk, place, place.ports[1:])
        self._watch(self._waker, self._rest)

    def _router(self, place: Listen, handler: Callable[[], None], high_water: int) -> Socket:
        router: Socket = self._context.socket(zmq.ROUTER)
        router.maxmsgsize = self._config.max_message_bytes
        router.rcvhwm = high_water
        # A peer that reconnects before its old connection is seen to be dead takes it over.
        router.router_handover = 1
        self._tune(router)
        router.ipv6 = ":" in place.place
        if self._keys is not None and place.transport == "tcp":
            self._keys.serve(router)
        self._watch(router, handler)
        self._reading[router] = True
        return router

    def _tune(self, socket: Socket) -> None:
        socket.handshake_ivl = HANDSHAKE_MS
        # No ZeroMQ heartbeats: under backpressure they take a busy peer for a dead one.
        socket.tcp_keepalive = 1
        socket.tcp_keepalive_idle = math.ceil(self._config.dead_after_s)
        socket.tcp_keepalive_intvl = 1
        socket.tcp_keepalive_cnt = PROBES
        # Keepalive says nothing of a link that was cut while something was on its way: without
        # this bound the kernel repeats it for a quarter of an hour. It is keepalive's bound too,
        # which a single probe that comes late must not reach.
        longest_s = self._config.dead_after_s + PROBES
        socket.set(zmq.TCP_MAXRT, math.ceil(longest_s * 1000))

    def _bind_ipc(self, socket: Socket, folder: str, file_name: str) -> str:
        address = ipc_endpoint(folder, file_name)
        path = Path(address.removeprefix("ipc://"))
        if is_listening(path):  # ZeroMQ would take its place without a word
            raise ConfigError(f"another process listens at {path}")
        self._try_bind(socket, address)
        self._files.append(path)
        return address

    def _bind_tcp(self, socket: Socket, place: Listen, ports: tuple[int, ...]) -> str:
        for port in ports:
            try:
                socket.bind(tcp_endpoint(place.place, port))
                break
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE:
                    raise ConfigError(f"cannot listen on {place.place}: {error}") from None
        else:
            if ports:
                raise ConfigError(f"all of ports {ports[0]} to {ports[-1]} are in use")
            self._try_bind(socket, tcp_endpoint(place.place, "*"))
        return socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def _try_bind(self, socket: Socket, address: str) -> None:
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise ConfigError(f"cannot listen on {address}: {error}") from None

    # ---- the I/O thread

    def _turn(self) -> None:
        self._obey()
        self._give_up_unreachable()
        self._flush_lanes()
        self.reception.hand_over()
        self._set_reading(self._control, self.reception.takes_control)
        self._set_reading(self._bulk, self.reception.takes_bulk)
        for socket, _ in self._poller.poll(self._patience_ms()):
            if (handler := self._handlers.get(socket)) is not None:
                handler()

    def _patience_ms(self) -> int | None:
        if self._to_flush:
            return 0
        waits = [self._patience_s(), *map(self._rest_s, self._connecting.values())]
        patience = min((wait for wait in waits if wait is not None), default=None)
        return None if patience is None else math.ceil(patience * 1000)

    def _rest_s(self, sender: _Sender) -> float | None:
        """How long a peer may still take to be there; None where nothing waits for it."""
        if not sender.waits:
            return None
        return max(0.0, sender.opened_at + self._config.dead_after_s - time.monotonic())

    def _give_up_unreachable(self) -> None:
        """What waits for a peer that nobody is there for waits in vain; who registers goes on."""
        for lane, sender in list(self._connecting.items()):
            if sender.connected or sender.peer.lost:
                del self._connecting[lane]
            elif self._rest_s(sender) == 0.0:
                self._lose(sender.peer, "cannot be reached")

    def _obey(self) -> None:
        """Open and close what other threads asked for."""
        while self._opened:
            self._open(*self._opened.popleft())
        while self._closed_peers:
            for lane in self._closed_peers.popleft().lanes():
                lane.queue.clear()
                self._close_sender(lane, linger_ms=0)

    def _open(self, peer: Peer, lane: Lane) -> None:
        socket: Socket = self._context.socket(zmq.DEALER)
        socket.routing_id = self._next_identity()
        socket.immediate = True  # never queue inside ZeroMQ for who is not there
        bulk = lane in peer.bulk
        socket.sndhwm = BULK_HIGH_WATER if bulk else self._config.high_water
        socket.rcvhwm = 1
        socket.ipv6 = True
        self._tune(socket)
        if self._keys is not None and lane.address.startswith("tcp://"):
            self._keys.join(socket)
        sender = self._senders[lane] = _Sender(socket, peer, lane)
        self._connecting[lane] = sender
        self._watch(sender.monitor, partial(self._read_monitor, sender))
        with self._lock:  # it may have been written to before there was a socket
            if lane.queue and not lane.scheduled:
                lane.scheduled = True
                self._to_flush.append(lane)
        try:
            socket.connect(lane.address)
        except zmq.ZMQError as error:
            log.error("%s cannot connect to %s: %s", self.name, lane.address, error)
            self._lose(peer, f"cannot connect: {error}")

    def _close_sender(self, lane: Lane, *, linger_ms: int) -> None:
        sender = self._senders.pop(lane, None)
        if sender is not None:
            self._connecting.pop(lane, None)
            self._unwatch(sender.monitor)
            self._unwatch(sender.socket)
            sender.close(linger_ms=linger_ms)

    def _flush_lanes(self) -> None:
        for _ in range(len(self._to_flush)):
            lane = self._to_flush.popleft()
            sender = self._senders.get(lane)
            if sender is None:
                lane.scheduled = False
            elif not self._flush(sender):
                self._watch(sender.socket, partial(self._resume, sender), zmq.POLLOUT)

    def _flush(self, sender: _Sender) -> bool:
        """Send a turn's worth. False: the socket takes no more now."""
        lane = sender.lane
        for _ in range(CONTROL_TURN):
            with self._lock:
                if not lane.queue:
                    lane.scheduled = False
                    return True
            parts = lane.queue[0]
            try:
                sender.socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            lane.queue.popleft()
            self._count_sent(parts)
        self._to_flush.append(lane)
        return True

    def _resume(self, sender: _Sender) -> None:
        self._unwatch(sender.socket)
        self._to_flush.append(sender.lane)

    def _read_control(self) -> None:
        self._read(self._control, CONTROL_TURN, bulk=False)

    def _read_bulk(self) -> None:
        self._read(self._bulk, BULK_TURN, bulk=True)

    def _read(self, router: Socket, turn: int, *, bulk: bool) -> None:
        for _ in range(turn):
            if not (self.reception.takes_bulk if bulk else self.reception.takes_control):
                return
            try:
                identity = router.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            parts: list[memoryview] = []
            more = router.rcvmore
            while more:
                frame = router.recv(zmq.NOBLOCK, copy=False)
                more = frame.more
                if len(parts) < 3:  # enough to see that there are too many
                    parts.append(frame.buffer)
            self.reception.receive(identity, parts, bulk=bulk)

    def _read_monitor(self, sender: _Sender) -> None:
        while sender.lane in self._senders:
            try:
                event = parse_monitor_message(sender.monitor.recv_multipart(zmq.NOBLOCK))["event"]
            except zmq.Again:
                return
            if event & zmq.EVENT_HANDSHAKE_SUCCEEDED:
                sender.connected = True
            elif event & _REFUSED:
                self.reception.drop("handshake", f"{sender.peer.name} refuses the connection")
            elif event & _LOST and sender.connected:
                sender.connected = False
                self._drain_then_lose(sender.peer)
                return

    def _drain_then_lose(self, peer: Peer) -> None:
        """What a dead peer sent before comes first, as far as it is here already."""
        self._read_control()
        self._lose(peer, "connection reset")

    def _authenticate(self) -> None:
        assert self._keys is not None
        if not curve.answer_zap(self._zap, self._keys):
            self.reception.drop("stranger", "a connection without the cluster's key")

    def _rest(self) -> None:
        os.eventfd_read(self._waker)

    def _watch(self, socket: Any, handler: Callable[[], None], flags: int = zmq.POLLIN) -> None:
        self._handlers[socket] = handler
        self._poller.register(socket, flags)

    def _unwatch(self, socket: Any) -> None:
        if self._handlers.pop(socket, None) is not None:
            self._poller.unregister(socket)

    def _set_reading(self, router: Socket, reading: bool) -> None:
        if self._reading[router] is not reading:
            self._reading[router] = reading
            if reading:
                self._poller.register(router, zmq.POLLIN)
            else:
                self._poller.unregister(router)

    def _free(self) -> None:
        """Close every socket; what ZeroMQ still holds gets the rest of the closing time."""
        rest_s = max(0.05, (self._stop_at or 0.0) - time.monotonic())
        for lane in list(self._senders):
            linger = 0 if self._senders[lane].peer.lost else math.ceil(rest_s * 1000)
            self._close_sender(lane, linger_ms=linger)
        for socket in [s for s in self._handlers if isinstance(s, zmq.Socket)]:
            socket.close(linger=0)
        self._handlers.clear()
        self._context.term()
        with self._lock:
            waker, self._waker = self._waker, -1
        os.close(waker)
        for path in self._files:
            path.unlink(missing_ok=True)
