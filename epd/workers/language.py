"""What prefill, fused and decode workers share around the engine.

A core gets messages and lost peers from its station, asks its hand-off machines what to do, and
does it. Step thread only.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from epd.deadlines import Deadlines
from epd.engine import Engine
from epd.errors import TooLate
from epd.handoff import EndChoice, Free, Instruction, KvReceiver, KvSender, Send
from epd.models.laps import Laps
from epd.transfer.incoming import Incoming, nothing
from epd.types import Prefix, RequestKey, TokenRun
from epd.wire.links import Delivery
from epd.wire.messages import (
    Cancel,
    Holding,
    Payload,
    PeerFailed,
    Refused,
    RequestFailed,
    RequestSpans,
    Room,
    StopChoice,
    Tokens,
)
from epd.workers.pace import Pace
from epd.workers.station import Handler, Station
from epd.workers.timing import RequestTimes, log_spans
from epd.workers.turns import Claims

log = logging.getLogger(__name__)


class Admission:
    """Blocks for one request, at once or not at all; who was refused hears when there is room."""

    def __init__(self, engine: Engine, station: Station) -> None:
        self._engine = engine
        self._station = station
        self._pace = Pace()
        self._owed: set[str] = set()
        self._free_then = 0
        self._preempted_then = False

    def reserve(
        self,
        gateway: str,
        request: RequestKey,
        num_tokens: int,
        prefix: Prefix | None,
        *,
        most_cached: int,
    ) -> int | None:
        """Tokens whose KV is here already, and the blocks are held; None: the gateway knows why."""
        cached = self._engine.reserve(request, num_tokens, prefix, most_cached=most_cached)
        if cached is not None:
            self._pace.began(request, time.monotonic())
            return cached
        never = not self._engine.fits(num_tokens)
        capacity = self._engine.num_tokens_capacity
        reason = f"needs KV for {num_tokens} tokens, {capacity} in all"
        if not never:
            self._owed.add(gateway)
            self._free_then = self._engine.free_tokens
            self._preempted_then = self._preempted
        refused = Refused(
            request=request, reason=reason, never=never, retry_after_ms=self._pace.next_ms()
        )
        self._station.send(gateway, refused)
        return None

    @property
    def _preempted(self) -> bool:
        return self._engine.host_blocks_used > 0

    def stepped(self) -> None:
        """The engine may have freed blocks by itself, or taken back those it had preempted."""
        if not self._owed or self._preempted:
            return
        if self._preempted_then or self._engine.free_tokens > self._free_then:
            self.given_back()

    def freed(self, request: RequestKey) -> None:
        """It holds nothing any more."""
        self._pace.ended(request, time.monotonic())
        self.given_back()

    def given_back(self) -> None:
        """There may be room."""
        owed, self._owed = self._owed, set()
        for gateway in owed:
            self._station.send(gateway, Room(free_tokens=self._engine.free_tokens))

    def gateway_lost(self, gateway: str) -> None:
        """Nobody to tell any more."""
        self._owed.discard(gateway)


class LanguageCore:
    """One engine, its admission, and the KV side of a hand-off.

    A subclass fills `_handlers` (by message) and adds to `_actions` (by instruction).
    """

    def __init__(
        self,
        station: Station,
        engine: Engine,
        kv: KvSender | KvReceiver,
        incoming: Incoming | None = None,
        laps: Laps | None = None,
    ) -> None:
        self._station = station
        self._engine = engine
        self._held = kv
        self._incoming = Incoming() if incoming is None else incoming
        self._laps = Laps() if laps is None else laps
        self._unread: deque[tuple[str, Any]] = deque()  # who is to hear it, and how
        self._arriving: list[Delivery] = []
        self._admission = Admission(engine, station)
        self._deadlines: Deadlines[RequestKey] = Deadlines()
        self._times = RequestTimes()
        self._handlers: dict[type[Any], Handler] = {
            Cancel: lambda peer, m, _: self._do(kv.ended(m.request)),
            PeerFailed: lambda peer, m, _: self._do(kv.peer_failed(peer, m.request)),
            StopChoice: lambda peer, m, _: self._do(kv.stop_choice(m)),
        }
        self._actions: dict[type[Any], Callable[[Any], None]] = {
            Send: self._send,
            Free: lambda free: self._free(free.request),
            EndChoice: lambda end: engine.end_choice(end.request, end.choice),
        }

    def receive(self, delivery: Delivery) -> None:
        """A message of this stage; one whose bytes are still to be read waits for them."""
        if self._is_here(delivery):
            self._dispatch(delivery)
        else:
            self._arriving.append(delivery)
        self._give_back()

    def _dispatch(self, delivery: Delivery) -> None:
        """To its handler, which may have no use for the bytes that came with it."""
        self._station.dispatch(self._handlers, delivery)
        payload = getattr(delivery.message, "payload", None)
        if isinstance(payload, Payload) and payload.remote:
            self._incoming.discard(delivery.sender, payload)

    def _is_here(self, delivery: Delivery) -> bool:
        payload = getattr(delivery.message, "payload", None)
        member = self._station.members.get(delivery.sender)
        if not isinstance(payload, Payload) or member is None:
            return True
        return self._incoming.arrived(member, payload)

    def _take_arrived(self) -> None:
        """Messages whose bytes have come, each as soon as they have."""
        here = [delivery for delivery in self._arriving if self._is_here(delivery)]
        for delivery in here:
            self._arriving.remove(delivery)
            self._dispatch(delivery)

    def local(self, event: object) -> None:
        """Nothing but messages comes here."""
        raise AssertionError(event)

    def peer_lost(self, name: str) -> None:
        """A worker at the other end of a hand-off died."""
        self._incoming.forget(name)
        self._arriving = [each for each in self._arriving if each.sender != name]
        self._do(self._held.peer_lost(name))

    def gateway_lost(self, name: str) -> None:
        """Its leases end."""
        self._admission.gateway_lost(name)
        self._do(self._held.gateway_lost(name))

    def holding(self, gateway: str) -> Holding:
        """The attempts of one gateway."""
        return Holding(requests=self._held.held_for(gateway), items=())

    @property
    def claims(self) -> Claims:
        """Of those that generate, or have prompt tokens that could be computed."""
        if not self._engine.has_work:
            return Claims()
        arriving = self._engine.num_arriving
        running = self._engine.num_requests - arriving
        return Claims(arriving, running if arriving else max(1, running))

    def _do(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            self._actions[type(instruction)](instruction)

    def _when_unread(self, payload: Payload, to: str, taken: Any) -> Callable[[], None]:
        """What tells a peer that its memory is not read any more, if it is its memory."""
        return partial(self._unread.append, (to, taken)) if payload.number >= 0 else nothing

    def _give_back(self) -> None:
        """Peers whose memory nobody here reads any more are told."""
        self._incoming.settle()
        while self._unread:
            self._station.send(*self._unread.popleft())

    def _end_late(self) -> None:
        """Nobody waits for these any more: no step runs for them."""
        for request in self._deadlines.expire(time.monotonic()):
            self._do(self._held.failed(request, TooLate("the request's deadline passed")))

    def _send(self, send: Send) -> None:
        if isinstance(send.message, RequestFailed):
            what = {"request": send.message.request.request_id, "code": send.message.code}
            log.info("request failed: %s", send.message.reason, extra=what)
        self._station.send(send.to, send.message)

    def _free(self, request: RequestKey) -> None:
        self._deadlines.forget(request)
        self._engine.release(request)
        self._times.forget(request)
        self._admission.freed(request)
        self._give_back()

    def _tell(self, spans: RequestSpans | None) -> None:
        """What a request took here, to its gateway."""
        gateway = None if spans is None else self._held.gateway_of(spans.request)
        if gateway is not None and spans is not None:
            log_spans(spans)
            self._station.send(gateway, spans)

    def _send_tokens(self, runs: Iterable[TokenRun]) -> None:
        """One message per gateway and step."""
        by_gateway: dict[str, list[TokenRun]] = defaultdict(list)
        for run in runs:
            gateway = self._held.gateway_of(run.request)
            if gateway is not None:
                by_gateway[gateway].append(run)
        for gateway, mine in by_gateway.items():
            self._station.send(gateway, Tokens(runs=tuple(mine)))

    def gauges(self) -> dict[str, int]:
        """What the worker holds."""
        return {
            "kv_blocks": self._engine.num_blocks,
            "kv_blocks_used": self._engine.used_blocks,
            "kv_blocks_cached": self._engine.cached_blocks,
            "host_blocks_used": self._engine.host_blocks_used,
            "preempted": self._engine.num_preempted,
            "kv_tokens": self._engine.num_tokens_capacity,
            "kv_tokens_free": self._engine.free_tokens,
            "requests": self._held.num_requests,
            **{f"engine_{name}": num for name, num in self._engine.counts.items()},
            **{f"engine_{k}_ms": int(1000 * s) for k, s in self._engine.seconds.items()},
        }

    def close(self) -> None:
        """Let go of mapped shared memory."""
        self._incoming.close()
