"""What becomes of bytes that arrived: dropped and counted, answered at once, or put in the inbox.

Used on the I/O thread alone. Holds events back while the inbox is full, in order, bounded.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from epd.errors import ProtocolError
from epd.wire.codec import decode
from epd.wire.early import Early
from epd.wire.links import (
    BULK_MESSAGES,
    Buffer,
    Delivery,
    OnIo,
    Sink,
    check_frame,
    parse_identity,
)
from epd.wire.messages import Register, RegisterRefused, Welcome

log = logging.getLogger(__name__)

RETRY_S: Final = 0.002  # how soon a full inbox is tried again
HOLD_LIMIT: Final = 256  # control messages read while the inbox is full, to reach heartbeats


class Acquaintance(Protocol):
    """What the reception asks about senders."""

    def knows(self, name: str, incarnation: str) -> bool:
        """Whether this incarnation is a peer."""

    def expects_welcome(self) -> bool:
        """Whether this node is registering with an unknown peer."""

    def admit(self, name: str, incarnation: str, *, via: str) -> None:
        """It answered the registration sent to `via`: its messages are welcome from now on."""


@dataclass
class Totals:
    """Counters of one node; written by the I/O thread."""

    sent: int = 0
    received: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Reception:
    """Checks every message against the rules of the wire before anybody acts on it."""

    def __init__(
        self,
        incarnation: str,
        acquaintance: Acquaintance,
        sink: Sink,
        *,
        on_io: OnIo | None,
        reply: Callable[[Delivery, object], bool],
        grace_s: float,
    ) -> None:
        self.totals = Totals()
        self.dropped: Counter[str] = Counter()
        self._incarnation = incarnation
        self._acquaintance = acquaintance
        self._sink = sink
        self._on_io = on_io
        self._reply = reply
        self._held: deque[object] = deque()
        self._early = Early(grace_s)

    @property
    def takes_control(self) -> bool:
        """Whether control messages may be read now."""
        return len(self._held) < HOLD_LIMIT

    @property
    def takes_bulk(self) -> bool:
        """Whether bulk messages may be read now: never more than the inbox has room for."""
        return not self._held

    def receive(self, identity: bytes, parts: Sequence[Buffer], *, bulk: bool) -> None:
        """One message as it came. Whatever the bytes are, this returns."""
        self._release_early()
        try:
            delivery, known = self._checked(identity, parts, bulk=bulk)
        except ProtocolError as error:
            self.drop(error.reason, error.message)
            return
        num_bytes = sum(map(len, parts))
        self.totals.received += 1
        self.totals.received_bytes += num_bytes
        if known:
            self._act(delivery, bulk=bulk)
        elif not self._early.keep(delivery, num_bytes=num_bytes, now=time.monotonic()):
            self._drop_strangers(delivery)

    def _act(self, delivery: Delivery, *, bulk: bool) -> None:
        if self._on_io is not None and not bulk:
            answer = self._on_io(delivery)
            if answer is not None:
                if not self._reply(delivery, answer):
                    self.drop("unanswered", f"no room to answer {delivery.sender}")
                return
        self.put(delivery)

    def put(self, event: object) -> None:
        """To the inbox, behind what is held back already."""
        self._held.append(event)
        self.hand_over()

    def hand_over(self) -> None:
        """Give the inbox what it has room for."""
        self._release_early()
        while self._held and self._sink.put(self._held[0]):
            self._held.popleft()

    def patience_s(self) -> float | None:
        """How long hand_over() can wait; None: until something happens."""
        if self._held:
            return RETRY_S
        expiry = self._early.next_expiry()
        return None if expiry is None else max(0.0, expiry - time.monotonic())

    def _release_early(self) -> None:
        if not self._early:
            return
        for delivery in self._early.release(self._acquaintance.knows):
            self._act(delivery, bulk=False)
        for delivery in self._early.expire(time.monotonic()):
            self._drop_strangers(delivery)

    def _drop_strangers(self, delivery: Delivery) -> None:
        self.drop("unknown_sender", f"{delivery.message.TAG} from {delivery.sender}")

    def drop(self, reason: str, text: str) -> None:
        """Count it, and log the first, second, fourth, ... of a kind: a flood stays readable."""
        self.dropped[reason] += 1
        count = self.dropped[reason]
        if count & (count - 1) == 0:
            log.warning("dropped a message (%s; number %d of its kind)", text, count)

    def counters(self) -> dict[str, int]:
        """A flat copy."""
        found = dict(vars(self.totals))
        found.update({f"dropped_{reason}": count for reason, count in self.dropped.copy().items()})
        return found

    def _checked(
        self, identity: bytes, parts: Sequence[Buffer], *, bulk: bool
    ) -> tuple[Delivery, bool]:
        """The delivery, and whether its sender may talk to us already."""
        if not 1 <= len(parts) <= 2:
            raise ProtocolError("parts", f"{len(parts)} parts")
        name, incarnation = parse_identity(identity)
        known = self._acquaintance.knows(name, incarnation)
        if bulk and not known:
            raise ProtocolError("unknown_sender", f"bulk from {name}")
        to, message = decode(memoryview(parts[0]))
        self._check_receiver(to, message)
        known = self._check_sender(name, incarnation, message, known=known)
        if isinstance(message, BULK_MESSAGES) is not bulk:
            raise ProtocolError("channel", f"{message.TAG} from {name} on the wrong channel")
        frame = memoryview(parts[1]).toreadonly() if len(parts) == 2 else None
        check_frame(message, None if frame is None else frame.nbytes)
        if isinstance(message, Welcome):
            self._acquaintance.admit(name, incarnation, via=message.via)
        delivery = Delivery(sender=name, incarnation=incarnation, message=message, frame=frame)
        return delivery, known

    def _check_sender(self, name: str, incarnation: str, message: Any, *, known: bool) -> bool:
        """Whether to act on it now. False: not before its sender is known."""
        if isinstance(message, Register):
            # A stranger may only register itself.
            if (message.member.name, message.member.incarnation) != (name, incarnation):
                raise ProtocolError("identity", f"{name} registers another")
            return True
        if isinstance(message, Welcome | RegisterRefused):
            # Only who was sent our Register can have addressed this incarnation.
            return known or self._acquaintance.expects_welcome()
        return known

    def _check_receiver(self, to: str, message: Any) -> None:
        if to != self._incarnation and not (isinstance(message, Register) and not to):
            raise ProtocolError("stale", f"{message.TAG} for another incarnation")
