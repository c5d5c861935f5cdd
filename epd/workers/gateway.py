"""The gateway process: HTTP in front, ownership of every request behind, one event loop.

The I/O thread delivers into the loop; all decisions are made there by `epd.cluster`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
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
from epd.config import Config
from epd.errors import EpdError, Unavailable
from epd.gateway.service import CallSpec
from epd.models.spec import SHAPES_TOKENS, Checkpoint
from epd.observe import Metrics, Path, Traces
from epd.prefix import prefix_root
from epd.wire.links import Delivery, PeerLost
from epd.wire.messages import (
    Admit,
    EncodeItem,
    Forget,
    HeartbeatReply,
    ItemSpans,
    Leaving,
    Recall,
    Recalled,
    Register,
    RequestSpans,
    Reserve,
)
from epd.wire.zmq_links import ZmqLinks
from epd.workers.calls import Calls
from epd.workers.live_call import LiveCall
from epd.workers.recalls import Recalls
from epd.workers.roster import Roster
from epd.workers.submissions import digests, fresh_ids, submission

log = logging.getLogger(__name__)

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
        self._config = config
        self._loop = asyncio.get_running_loop()
        fingerprint = checkpoint.fingerprint()
        same = {key: fingerprint[key] for key in SHAPES_TOKENS}
        self._membership = Membership(same, config.gateway.allow)
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
        self.roster = Roster(
            self._membership, self._ownership, self.links, metrics, config.wire, self._do
        )
        self.recalls = Recalls(
            self.links.name,
            self.links.send,
            lambda: (member.name for member in self._membership.members),
            config.wire,
        )
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self._calls = Calls(
            metrics,
            traces,
            most=config.gateway.max_waiting,
            media_bytes=config.gateway.media_budget_bytes,
        )
        self._ids = fresh_ids()
        self._arrived: deque[object] = deque()
        self._turn_is_due = False
        self._left = False
        self._handlers: dict[type[Any], Any] = {
            Register: self.roster.on_register,
            HeartbeatReply: self.roster.on_heartbeat,
            Leaving: self.roster.on_leaving,
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
        self._calls.check_room()
        first, num = call.sampling.first_choice, call.sampling.n
        media = tuple(part.source.data for part in call.draft.parts)
        request_id = next(self._ids)
        modalities = [part.modality for part in call.draft.parts]
        path = Path.of(request_id, time.monotonic(), modalities)
        live = LiveCall(self, request_id, media, set(range(first, first + num)), path)
        self._calls.begin(live, call.traceparent)
        timeout = min(call.deadline_s, self._config.gateway.request_timeout_s)
        live.ends = path.began + timeout
        live.timer = self._loop.call_later(timeout, self._expire, request_id, timeout)
        for modality in modalities:
            self.metrics_registry.item(modality)
        self._do(self._ownership.submit(submission(request_id, call, sources)))
        return live

    def cancel(self, request_id: str, error: EpdError) -> None:
        """End a request from this side."""
        if request_id in self._calls:
            self._do(self._ownership.cancel(request_id))
            self._calls.fail(request_id, error)

    def end_choice(self, request_id: str, choice: int) -> None:
        """Nobody wants more of one choice. Harmless when it has ended."""
        if request_id in self._calls:
            self._do(self._ownership.end_choice(request_id, choice))
            if not self._ownership.owns(request_id):
                self._calls.end(request_id, "200")

    def _expire(self, request_id: str, timeout: float) -> None:
        self.cancel(request_id, Unavailable(f"no answer within {timeout:.0f} s"))

    def end_all(self) -> None:
        """The process stops: whoever still waits is told so."""
        for request_id in self._calls.ids():
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
            "workers": self.roster.overview.rows(time.monotonic()),
        }

    def where(self, request_id: str) -> dict[str, Any]:
        """What one request waits for, for people."""
        age_s = self._calls.age_s(request_id)
        return {"id": request_id, "age_s": age_s, "parts": self._ownership.standing(request_id)}

    def recent(self) -> list[dict[str, Any]]:
        """See Calls.recent."""
        return self._calls.recent()

    def drain(self, name: str, seconds: float | None) -> None:
        """Tell a worker to finish and to leave."""
        self.roster.drain(name, self._config.gateway.drain_s if seconds is None else seconds)

    def metrics(self) -> bytes:
        """The Prometheus page."""
        self.metrics_registry.set_gauges(
            requests=self._ownership.num_requests,
            waiting=self._ownership.num_waiting,
            running=self._ownership.num_running,
            pending=self._calls.pending(),
            media_bytes=self._calls.media_bytes,
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
            self.roster.lost(event.name, event.incarnation, event.reason)
        elif isinstance(event, Delivery):
            self._deliver(event)

    def _deliver(self, delivery: Delivery) -> None:
        self._calls.heard(delivery.sender, delivery.message)
        handler = self._handlers.get(type(delivery.message))
        if handler is not None:
            handler(delivery)
            return
        told = hear(self._ownership, delivery.sender, delivery.message)
        if told is None:
            log.warning("unexpected message=%s from=%s", delivery.message, delivery.sender)
        else:
            self._do(told)

    def leave(self) -> None:
        """Tell the workers that the leases end here."""
        self._left = True
        self.roster.leave()
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
                    self._calls.fail(request_id, error)
                case _:
                    raise AssertionError(instruction)

    def _tell(self, to: str, message: object) -> None:
        self._calls.told(to, message)
        frame: bytes | None = None
        if isinstance(message, EncodeItem) and message.url is None:
            frame = self._calls[asked_as(message.item.request_id)].media[message.item.index]
        if isinstance(message, EncodeItem | Reserve | Admit):
            key = message.item if isinstance(message, EncodeItem) else message.request
            message = replace(message, deadline_ms=self._calls.remaining_ms(key.request_id))
        if not self.links.send(to, message, frame):
            self.roster.unreachable(to)

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
            self._calls.end(emit.request_id, "200")
