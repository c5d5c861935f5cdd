"""What a node does with its peers, whatever carries the bytes: the interface and its two events.

A node is named and has a random incarnation. It receives on two addresses, control and bulk, and
sends to each peer on lanes of its own per address, so that no peer and no tensor delays another's
messages. Control messages arrive in order. Bulk ones may come in any, for over TCP several lanes
share them. `ZmqLinks` and `InprocLinks` behave alike; the same protocol tests run over both.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from epd.errors import ConfigError, ProtocolError
from epd.types import Member
from epd.wire.messages import EmbeddingData, EncodeItem, Found, KvChunk, KvPart, Recalled

Buffer = bytes | bytearray | memoryview

BULK_MESSAGES: Final = (EmbeddingData, KvChunk, KvPart)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message meant for this incarnation, from a peer that it knows.

    `frame` is read-only memory of the wire: copy what is needed and let it go.
    """

    sender: str
    incarnation: str
    message: Any
    frame: memoryview | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLost:
    """The connection to a connected peer was reset. Once per incarnation.

    Nothing can be sent to it any more; what it sent before may still be delivered. With this
    node's own name: its I/O thread failed, and the process cannot go on.
    """

    name: str
    incarnation: str
    reason: str


OnIo = Callable[[Delivery], object | None]


class Sink(Protocol):
    """Where events go: an Inbox."""

    def put(self, event: object) -> bool:
        """False: full, try again later."""


class Links(Protocol):
    """All connections of one node. Every method may be called from any thread."""

    name: str
    incarnation: str
    control: str
    bulk: str

    def start(self) -> None:
        """Begin to receive and to send; the addresses are bound before."""

    def close(self) -> None:
        """Send what is queued for at most half a second, then free every socket and file."""

    def connect(self, member: Member) -> None:
        """Know this peer. Idempotent; a new incarnation of a name replaces the old one.

        ProtocolError for an address that is none, ConfigError for one that needs keys.
        """

    def connect_unknown(self, address: str) -> None:
        """Know a peer by its control address alone, to register there: send(to=address).

        Its Welcome makes it a known sender. connect() with that address takes the link over.
        """

    def forget(self, name: str) -> None:
        """Drop this peer and all that is queued for it. Its later messages are a stranger's."""

    def send(self, to: str, message: object, frame: Buffer | None = None) -> bool:
        """Queue a message; never blocks. False: peer unknown or lost, or its queue is full.

        The bytes of `frame` must not change from here on. ProtocolError for a message that no
        receiver would accept, an oversized frame among them.
        """

    def counters(self) -> dict[str, int]:
        """Totals: sent, received, sent_bytes, received_bytes, and dropped_REASON."""


def new_incarnation() -> str:
    """Unguessable: who can address a message to it has been told by this node."""
    return secrets.token_hex(16)


def check_name(name: str) -> str:
    """Names stand in identities and file names. ConfigError unless it is fit for both."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a process: letters, digits, '.', '_', '-' only")
    return name


def identity_of(name: str, incarnation: str, number: int) -> bytes:
    """What a node calls itself on its connection of this number; no two may be called alike."""
    return f"{name}@{incarnation}#{number}".encode()


def parse_identity(identity: bytes) -> tuple[str, str]:
    """(name, incarnation). ProtocolError for what identity_of never makes."""
    try:
        name, _, rest = identity.decode("ascii").partition("@")
    except UnicodeDecodeError:
        raise ProtocolError("identity", "not text") from None
    incarnation = rest.partition("#")[0]
    if not _NAME.fullmatch(name) or not incarnation:
        raise ProtocolError("identity", "not NAME@INCARNATION#NUMBER")
    return name, incarnation


def check_frame(message: object, frame_bytes: int | None) -> None:
    """ProtocolError unless `message` has a raw frame exactly where its fields promise one."""
    expected: int | None = None
    if isinstance(message, BULK_MESSAGES):
        expected = message.payload.nbytes if message.payload.slot < 0 else None
    elif isinstance(message, EncodeItem):
        expected = frame_bytes or 0 if message.url is None else None
    elif isinstance(message, Recalled):
        expected = frame_bytes or 0 if message.found is Found.KEPT else None
    if frame_bytes != expected:
        raise ProtocolError("frame", f"{frame_bytes} bytes in the frame, {expected} promised")
