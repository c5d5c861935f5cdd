"""The gateway process: HTTP in front, ownership of every request behind, one event loop.

The I/O thread delivers into the loop; all decisions are made there by `epd.cluster`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from epd.cluster import (
    Accepted,
    Emit,
    Failed,
    Membership,
    Ownership,
    Placement,
    Tell,
    asked_as,
    hear,
)
from epd.cluster.membership import Rejected
from epd.config import Config
from epd.errors import EpdError, InternalError, NotFound, Overloaded, Unavailable
from epd.gateway.service import CallSpec
from epd.models.spec import SHAPES_TOKENS, Checkpoint
from epd.observe import Metrics, PassedOn, Path, Traces, shown
from epd.prefix import prefix_root
from epd.types import Member
from epd.wire.links import Delivery, PeerLost
from epd.wire.messages import (
    Admit,
    Drain,
    EncodeItem,
    Forget,
    Heartbeat,
    HeartbeatReply,
    ItemSpans,
    Leaving,
    Members,
    Recall,
    Recalled,
    Register,
    RegisterRefused,
    Released,
    RequestSpans,
    Reserve,
    Welcome,
)
from epd.wire.zmq_links import ZmqLinks
from epd.workers import paths
from epd.workers.awake import Awake
from epd.workers.live_call import LiveCall
from epd.workers.overview import Overview
from epd.workers.recalls import Recalls
from epd.workers.submissions import digests, fresh_ids, submission

log = logging.getLogger(__name__)

RECENT = 128
"""Requests that have ended, and can be shown with their paths."""

ROOTS = 1024
"""Salts whose first parent is remembered: a tenant asks again and again."""


class Node:
    """The gateway's seat in the cluster. All but `put` runs on the event loop."""

    def __init__(
        self,
        config: Config,
        checkpoint: Checkpoint,
        metrics: Metrics,
        traces: Traces | None = None,
    ) -> None:
        self.model_name = config.gateway.served_model_name or checkpoint.name
        self.created = int(time.time())
        self.metrics_registry = metrics
        self._traces = traces or PassedOn()
        self._config = config
        self._loop = asyncio.get_running_loop()
        fingerprint = checkpoint.fingerprint()
        same = {key: fingerprint[key] for key in SHAPES_TOKENS}
        self._membership = Membership(same, config.gateway.allow)
        self.overview = Overview(self._membership)
        self._ownership = Ownership(
            self._membership,
            Placement(self._membership),
            checkpoint.max_context,
            lru_cache(ROOTS)(partial(prefix_root, fingerprint))
            if config.language.prefix_cache
            else None,
            config.gateway.max_wait_s,
        )
        self.links = ZmqLinks(config.name or "gateway-0", config.listen, config.wire, self)
        self.recalls = Recalls(
            self.links.name,
            self.links.send,
            lambda: (member.name for member in self._membership.members),
            config.wire,
        )
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self._calls: dict[str, LiveCall] = {}
        self._media_bytes = 0
        self._ids = fresh_ids()
        self._ended_last: deque[tuple[Path, str]] = deque(maxlen=RECENT)
        self._arrived: deque[object] = deque()
        self._turn_is_due = False
        self._awake = Awake(config.wire.dead_after_s / 2)
        self._heard: dict[str, float] = {}
        self._beats = 0
        self._left = False
        self._handlers: dict[type[Any], Any] = {
            Register: self._on_register,
            HeartbeatReply: self._on_heartbeat,
            Leaving: lambda d: self._lost(d.sender, d.incarnation, d.message.reason, left=True),
            Recall: self.recalls.on_question,
            Forget: self.recalls.on_question,
            Recalled: self.recalls.on_recalled,
            ItemSpans: lambda d: None,  # of use to the request's path alone
            RequestSpans: lambda d: None,
        }

    # ---- the HTTP side

    async def submit(self, call: CallSpec) -> LiveCall:
        """Take a request, or refuse it at once."""
        sources = await digests(call.draft)
        if len(self._calls) >= self._config.gateway.max_waiting:
            raise Overloaded(f"{len(self._calls)} requests are waiting already")
        first, num = call.sampling.first_choice, call.sampling.n
        media = tuple(part.source.data for part in call.draft.parts)
        request_id = next(self._ids)
        modalities = [part.modality for part in call.draft.parts]
        path = Path.of(request_id, time.monotonic(), modalities)
        live = LiveCall(self, request_id, media, set(range(first, first + num)), path)
        path.traceparent = self._traces.begin(call.traceparent)
        self._hold_media(live)
        self._calls[live.request_id] = live
        timeout = min(call.deadline_s, self._config.gateway.request_timeout_s)
        live.ends = path.began + timeout
        live.timer = self._loop.call_later(timeout, self._expire, live.request_id, timeout)
        for part in call.draft.parts:
            self.metrics_registry.item(part.modality)
        self._do(self._ownership.submit(submission(live.request_id, call, sources)))
        return live

    def _hold_media(self, live: LiveCall) -> None:
        held = self._media_bytes + live.media_bytes
        if held > self._config.gateway.media_budget_bytes:
            raise Overloaded("too much inline media is waiting already")
        self._media_bytes = held

    def cancel(self, request_id: str, error: EpdError) -> None:
        """End a request from this side."""
        if request_id in self._calls:
            self._do(self._ownership.cancel(request_id))
            self._ended(request_id, error)

    def end_choice(self, request_id: str, choice: int) -> None:
        """Nobody wants more of one choice. Harmless when it has ended."""
        if request_id in self._calls:
            self._do(self._ownership.end_choice(request_id, choice))
            if not self._ownership.owns(request_id):
                self._answered(request_id)

    def _expire(self, request_id: str, timeout: float) -> None:
        self.cancel(request_id, Unavailable(f"no answer within {timeout:.0f} s"))

    def end_all(self) -> None:
        """The process stops: whoever still waits is told so."""
        for request_id in list(self._calls):
            self.cancel(request_id, Unavailable("the server stops"))

    def ready(self) -> bool:
        """A text request could be answered now."""
        return self._membership.complete

    def cluster(self) -> dict[str, Any]:
        """Every worker and what it holds, for people."""
        return {
            "model": self.model_name,
            "gateway": self.links.name,
            "ready": self.ready(),
            "requests": self._ownership.num_requests,
            "waiting": self._ownership.num_waiting,
            "workers": self.overview.rows(time.monotonic()),
        }

    def where(self, request_id: str) -> dict[str, Any]:
        """What one request waits for, for people."""
        call = self._calls.get(request_id)
        if call is None:
            raise NotFound(f"no request {request_id[:200]!r} is running here")
        age_s = round(time.monotonic() - call.path.began, 3)
        return {"id": request_id, "age_s": age_s, "parts": self._ownership.standing(request_id)}

    def recent(self) -> list[dict[str, Any]]:
        """The paths of the last requests that have ended, the oldest first, and how long ago each
        came."""
        now = time.monotonic()
        return [
            {"age_ms": round(1000 * (now - path.began), 3), "status": status, **shown(path)}
            for path, status in self._ended_last
        ]

    def drain(self, name: str, seconds: float | None) -> None:
        """Tell a worker to finish and to leave."""
        if self._membership.get(name) is None:
            raise NotFound(f"no worker is called {name[:200]!r}")
        drain_s = self._config.gateway.drain_s if seconds is None else seconds
        self.links.send(name, Drain(deadline_ms=int(1000 * drain_s)))

    def metrics(self) -> bytes:
        """The Prometheus page."""
        self.metrics_registry.set_gauges(
            requests=self._ownership.num_requests,
            waiting=self._ownership.num_waiting,
            running=self._ownership.num_running,
            pending=Counter(kind for call in self._calls.values() for kind in call.path.pending),
            media_bytes=self._media_bytes,
            links=self.links.counters(),
        )
        return self.metrics_registry.render()

    # ---- the cluster side

    def put(self, event: object) -> bool:
        """From the I/O thread. Waking the loop costs more than most events: once for many."""
        self._arrived.append(event)
        if not self._turn_is_due:
            self._turn_is_due = True
            try:
                self._loop.call_soon_threadsafe(self._turn)
            except RuntimeError:  # the loop is closed: this process ends
                log.debug("an event came after the end")
        return True

    def _turn(self) -> None:
        self._turn_is_due = False  # first: what arrives from now on is for another turn
        for _ in range(len(self._arrived)):
            self._guarded(self._arrived.popleft())

    def _guarded(self, event: object) -> None:
        """A fault of ours ends the process: a gateway that lost count must not go on."""
        if self._left:  # workers that go on looking for us are not to be told that we are here
            return
        try:
            self._handle(event)
        except Exception as error:  # noqa: BLE001  the barrier of this process
            if not self.broken.done():
                self.broken.set_exception(error)

    def _handle(self, event: object) -> None:
        if isinstance(event, PeerLost):
            self._lost(event.name, event.incarnation, event.reason)
        elif isinstance(event, Delivery):
            self._deliver(event)

    def _deliver(self, delivery: Delivery) -> None:
        if call := self._calls.get(paths.request_of(delivery.message) or ""):
            paths.heard(call.path, delivery.sender, delivery.message, time.monotonic())
        handler = self._handlers.get(type(delivery.message))
        if handler is not None:
            handler(delivery)
            return
        told = hear(self._ownership, delivery.sender, delivery.message)
        if told is None:
            log.warning("unexpected message=%s from=%s", delivery.message, delivery.sender)
        else:
            self._do(told)

    def _on_register(self, delivery: Delivery) -> None:
        message: Register = delivery.message
        member = message.member
        if member.name != delivery.sender or member.incarnation != delivery.incarnation:
            log.warning("a register that is not the sender's own from=%s", delivery.sender)
            return
        lost = message.lost.get(self.links.name, 0)
        joined = self._membership.join(member, message.fingerprint, lost)
        if isinstance(joined, Rejected):
            self._refuse(member, joined.reason)
            return
        self.links.connect(member)
        if joined.replaced is not None:
            self._gone(joined.replaced, "restarted")
        welcome = Welcome(
            gateway=self.links.name, incarnation=self.links.incarnation, via=message.via
        )
        self.links.send(member.name, welcome)
        now = time.monotonic()
        if member.name not in self._heard:
            log.info("joined worker=%s stages=%s", member.name, ",".join(member.stages))
            self.overview.joined(member, now)
        self._heard[member.name] = self._awake.read(now)
        drains = message.draining and self._membership.drain(member.name)
        if drains:
            log.info("drains worker=%s", member.name)
        if drains or not message.draining:
            self._publish()
            self._do(self._ownership.room())
        self._release()

    def _release(self) -> None:
        """Draining workers that nothing needs any more may leave."""
        for member in self._membership.draining:
            if not self._ownership.needs(member):
                self.links.send(member.name, Released(reason="no request needs you"))

    def _refuse(self, member: Member, reason: str) -> None:
        """Say why, unless its name is a member's, whose link it must not take."""
        log.error("refused worker=%s reason=%s", member.name, reason)
        if self._membership.get(member.name) is None:
            self.links.connect(member)
            self.links.send(member.name, RegisterRefused(reason=reason))

    def _on_heartbeat(self, delivery: Delivery) -> None:
        self._heard[delivery.sender] = self._awake.read(time.monotonic())
        member = self._membership.get(delivery.sender)
        if member is not None:
            gauges = {**delivery.message.gauges, "step_age_ms": delivery.message.step_age_ms}
            self.overview.reported(member, gauges)
            self.metrics_registry.worker(member.name, "+".join(member.stages), gauges)
            self._ownership.reported(member.name, delivery.message.gauges)

    def _lost(self, name: str, incarnation: str, reason: str, *, left: bool = False) -> None:
        if name == self.links.name:
            raise InternalError(reason)
        member = self._membership.leave(name, incarnation)
        if member is not None:
            self.links.forget(name)
            self._gone(member, reason, left=left)

    def _gone(self, member: Member, reason: str, *, left: bool = False) -> None:
        log.warning("lost worker=%s reason=%s", member.name, reason)
        self._heard.pop(member.name, None)
        self.overview.gone(member)
        self.metrics_registry.worker_gone(member.name)
        self._publish()
        self._do(self._ownership.worker_lost(member.name, left=left))

    def _publish(self) -> None:
        table = Members(members=self._membership.members)
        for member in table.members:
            self.links.send(member.name, table)

    async def beat(self) -> None:
        """Heartbeats, for ever: they renew the leases of all requests."""
        wire = self._config.wire
        while True:
            self._beats += 1
            now = self._awake.read(time.monotonic())
            for member in self._membership.members:
                if now - self._heard.get(member.name, now) > wire.dead_after_s:
                    self._lost(member.name, member.incarnation, "no heartbeat")
                else:
                    self.links.send(member.name, Heartbeat(sequence=self._beats))
            self._release()
            await asyncio.sleep(wire.heartbeat_s)

    def leave(self) -> None:
        """Tell the workers that the leases end here."""
        self._left = True
        for member in self._membership.members:
            self.links.send(member.name, Leaving(reason="the gateway stops"))
        self.links.close()

    # ---- instructions

    def _do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Tell(to, message):
                    self._tell(to, message)
                case Accepted():
                    self._accepted(instruction)
                case Emit():
                    self._emit(instruction)
                case Failed(request_id, error):
                    self._ended(request_id, error)
                case _:
                    raise AssertionError(instruction)

    def _tell(self, to: str, message: object) -> None:
        if call := self._calls.get(paths.request_of(message) or ""):
            paths.told(call.path, to, message)
        frame: bytes | None = None
        if isinstance(message, EncodeItem) and message.url is None:
            frame = self._calls[asked_as(message.item.request_id)].media[message.item.index]
        if isinstance(message, EncodeItem | Reserve | Admit):
            message = replace(message, deadline_ms=self._remaining_ms(message))
        if not self.links.send(to, message, frame):
            member = self._membership.get(to)
            if member is not None:
                reason = "cannot be reached"
                self._loop.call_soon(self._lost, to, member.incarnation, reason)

    def _remaining_ms(self, message: EncodeItem | Reserve | Admit) -> int:
        """Of its request's time; at least 1, for the end has an event of its own."""
        key = message.item if isinstance(message, EncodeItem) else message.request
        left = self._calls[asked_as(key.request_id)].ends - time.monotonic()
        return max(1, int(left * 1000))

    def _accepted(self, accepted: Accepted) -> None:
        call = self._calls[accepted.request_id]
        call.num_prompt_tokens = accepted.num_prompt_tokens
        call.prompt_token_ids = accepted.token_ids
        call.prompt_row_spans = accepted.row_spans
        call.path.laid_out = time.monotonic()
        self.metrics_registry.prompt_tokens(accepted.num_prompt_tokens)

    def _emit(self, emit: Emit) -> None:
        call = self._calls[emit.request_id]
        if emit.opening is not None:
            call.num_cached_tokens = emit.opening.num_cached_tokens
            call.prompt_logprobs = emit.opening.prompt_logprobs
            self.metrics_registry.prompt_tokens_cached(call.num_cached_tokens)
            call.path.first_token = time.monotonic()
            call.path.num_cached_tokens = call.num_cached_tokens
            self.metrics_registry.first_token(call.path.first_token - call.path.began)
        call.put(emit.run)
        self.metrics_registry.tokens(len(emit.run.token_ids))
        if emit.last:
            self._answered(emit.request_id)

    def _answered(self, request_id: str) -> None:
        self._close(request_id, "200")

    def _ended(self, request_id: str, error: EpdError) -> None:
        call = self._close(request_id, str(error.status))
        call.put(error)
        self.metrics_registry.failure(error.code)
        what = {"request": request_id, "status": error.status, "code": error.code}
        log.info("request failed: %s", error.message, extra=what)

    def _close(self, request_id: str, status: str) -> LiveCall:
        call = self._calls.pop(request_id)
        self._media_bytes -= call.media_bytes
        if call.timer is not None:
            call.timer.cancel()
        call.path.close(time.monotonic())
        self.metrics_registry.request(status)
        self.metrics_registry.path(call.path)
        self._traces.end(call.path, status)
        self._ended_last.append((call.path, status))
        log.debug("request ended", extra={"request": request_id, "status": status})
        return call
