"""Nodes over every transport, so that one body tests them all."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import zmq

from epd.config.sections import WireConfig
from epd.types import Member, RequestKey
from epd.wire.inbox import Inbox
from epd.wire.inproc_links import Hub, InprocLinks
from epd.wire.links import Delivery, OnIo, identity_of
from epd.wire.messages import Cancel, Heartbeat, HeartbeatReply, KvChunk, Payload
from epd.wire.zmq_links import ZmqLinks

PATIENCE_S = 20.0

CANCEL = Cancel(request=RequestKey("r", 1))

CHILD = """
import json, signal, sys
from epd.config.sections import WireConfig
from epd.wire.inbox import Inbox
from epd.wire.zmq_links import ZmqLinks
links = ZmqLinks(sys.argv[1], sys.argv[2], WireConfig(), Inbox())
links.start()
print(json.dumps([links.name, links.incarnation, links.control, links.bulk]), flush=True)
signal.pause()
"""


def eventually(holds: Callable[[], bool]) -> None:
    """What the I/O thread does is seen from outside a moment later, and no longer than that."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it never became true"
        Event().wait(0.001)


class Node:
    """Links with their inbox."""

    def __init__(self, links: InprocLinks | ZmqLinks, inbox: Inbox) -> None:
        self.links = links
        self.inbox = inbox
        self._events: deque[Any] = deque()

    @property
    def member(self) -> Member:
        return member_of(*(self.links.name, self.links.incarnation), *self.addresses)

    @property
    def addresses(self) -> tuple[str, str]:
        return self.links.control, self.links.bulk

    @property
    def identity(self) -> bytes:
        """As one more of its connections would say."""
        return identity_of(self.links.name, self.links.incarnation, 99)

    def next(self) -> Any:
        """The next event, which must come."""
        if not self._events:
            self._events += self.inbox.take(wait=True, timeout=PATIENCE_S)
        assert self._events, f"{self.links.name} got nothing: {self.links.counters()}"
        return self._events.popleft()

    def nothing(self) -> bool:
        self._events += self.inbox.take(wait=False)
        return not self._events

    def dropped(self, reason: str) -> int:
        return self.links.counters().get(f"dropped_{reason}", 0)

    def knows(self, *others: Node) -> Node:
        for other in others:
            self.links.connect(other.member)
        return self


def member_of(name: str, incarnation: str, control: str, bulk: str) -> Member:
    return Member(
        name=name,
        incarnation=incarnation,
        stages=(),
        control=control,
        bulk=bulk,
        host="h",
        pool="p",
    )


class Net:
    """Makes nodes and strangers of one transport."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.hub = Hub()
        self._nodes: list[Node] = []
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._raw: list[zmq.Socket[bytes]] = []
        self._children: list[subprocess.Popen[str]] = []

    def node(
        self,
        name: str,
        *,
        on_io: OnIo | None = None,
        capacity: int = 4096,
        start: bool = True,
        grace_s: float = 0.0,
        listen: str | None = None,
        **config: Any,
    ) -> Node:
        inbox = Inbox(capacity=capacity)
        links: InprocLinks | ZmqLinks
        if self.kind == "inproc":
            links = InprocLinks(name, self.hub, inbox, on_io=on_io, grace_s=grace_s, **config)
        else:
            place = listen or self.listen
            links = ZmqLinks(name, place, WireConfig(**config), inbox, on_io=on_io, grace_s=grace_s)
        self._nodes.append(Node(links, inbox))
        if start:
            links.start()
        return self._nodes[-1]

    @property
    def listen(self) -> str:
        return f"ipc://{self.folder}" if self.kind == "ipc" else "tcp://127.0.0.1"

    def raw(self, address: str, identity: bytes, *messages: tuple[bytes, ...]) -> None:
        """Any bytes, as a stranger sends them, each message as its parts."""
        if self.kind == "inproc":
            self.hub.inject(address, identity, *messages)
            return
        dealer = self.context.socket(zmq.DEALER)
        if identity:
            dealer.routing_id = identity
        dealer.connect(address)
        for parts in messages:
            dealer.send_multipart(parts)
        self._raw.append(dealer)

    def killable(self, name: str) -> tuple[Member, Callable[[], None]]:
        """A peer in a process of its own where the transport has processes; and its end."""
        if self.kind == "inproc":
            node = self.node(name)
            return node.member, node.links.close
        command = [sys.executable, "-c", CHILD, name, self.listen]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._children.append(child)
        assert child.stdout is not None
        return member_of(*json.loads(child.stdout.readline())), child.kill

    def fixed_listen(self) -> str | None:
        """A place that a restarted node binds again."""
        return f"tcp://127.0.0.1:{free_port_pair()}" if self.kind == "tcp" else None

    def close(self) -> None:
        for node in self._nodes:
            node.links.close()
        for dealer in self._raw:
            dealer.close(linger=0)
        self.context.term()
        for child in self._children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def free_port_pair() -> int:
    """A port that is free now, with the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Unix sockets need short paths."""
    with tempfile.TemporaryDirectory(prefix="epd-") as folder:
        yield Path(folder)


@pytest.fixture(params=["inproc", "ipc", "tcp"])
def net(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Net]:
    made = Net(request.param, short_folder)
    yield made
    made.close()


@pytest.fixture(params=["ipc", "tcp"])
def zmq_net(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Net]:
    made = Net(request.param, short_folder)
    yield made
    made.close()


def chunk(frame: bytes | None, *, number: int = 0) -> KvChunk:
    slot, nbytes = (-1, len(frame)) if frame is not None else (3, 64)
    return KvChunk(
        request=RequestKey("r", 1),
        first_token=number,
        num_tokens=1,
        first_layer=0,
        num_layers=1,
        payload=Payload(dtype="float32", shape=(nbytes // 4,), nbytes=nbytes, slot=slot),
    )


def pair(net: Net, **options: Any) -> tuple[Node, Node]:
    """Two nodes that know each other."""
    a, b = net.node("a"), net.node("b", **options)
    return a.knows(b), b.knows(a)


def answer_heartbeats(delivery: Delivery) -> object | None:
    if isinstance(delivery.message, Heartbeat):
        return HeartbeatReply(sequence=delivery.message.sequence, step_age_ms=0, gauges={})
    return None
