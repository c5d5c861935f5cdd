"""The decode side of P->D: pulls KV as prefill offers it, and starts when all of it is here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from epd.errors import EpdError, InternalError, Unavailable
from epd.handoff.instructions import EndChoice, Free, Instruction, Send, StartDecode, failure
from epd.handoff.spans import Spans
from epd.handoff.tombstones import Tombstones
from epd.types import RequestKey
from epd.wire.messages import (
    HandedOver,
    HandOff,
    KvChunk,
    KvReady,
    PeerFailed,
    PullKv,
    StopChoice,
)


@dataclass(slots=True)
class _Request:
    gateway: str
    prefill: str
    num_tokens: int
    cached: int
    asked: int  # [cached, asked) has been pulled
    landed: list[Spans]  # by layer
    ready: int = 0
    unsettled: int = 0  # chunks that landed and are being written
    state: HandOff | None = None
    running: bool = False
    stopped: set[int] = field(default_factory=set)

    @property
    def outstanding(self) -> int:
        """Token-layers asked for and not landed."""
        asked = (self.asked - self.cached) * len(self.landed)
        return asked - sum(spans.count for spans in self.landed)


class KvReceiver:
    """Owner of the reservations of this decode worker.

    `window_tokens` bounds what one request has asked for and not received.
    """

    def __init__(self, num_layers: int, window_tokens: int) -> None:
        self._layers = num_layers
        self._window = window_tokens
        self._requests: dict[RequestKey, _Request] = {}
        self._ended = Tombstones()

    def refuses(self, request: RequestKey) -> bool:
        """True for an attempt that ended here or is here already: its Reserve is stale."""
        return request in self._ended or request in self._requests

    def reserved(
        self, gateway: str, request: RequestKey, prefill: str, num_tokens: int, cached_tokens: int
    ) -> None:
        """Blocks are held; the first `cached_tokens` tokens have KV here already."""
        layers = [Spans() for _ in range(self._layers)]
        self._requests[request] = _Request(
            gateway, prefill, num_tokens, cached_tokens, cached_tokens, layers
        )

    def gateway_of(self, request: RequestKey) -> str | None:
        """Whom to send the request's tokens to; None when it has ended."""
        state = self._requests.get(request)
        return state.gateway if state else None

    def ready(self, peer: str, message: KvReady) -> list[Instruction]:
        """Prefill has computed more."""
        state = self._of(peer, message.request)
        if state is None:
            return [Send(peer, PeerFailed(request=message.request))]
        if message.num_tokens > state.num_tokens:
            return self.failed(message.request, InternalError("prefill offered too much KV"))
        state.ready = max(state.ready, message.num_tokens)
        return self._ask(message.request, state)

    def _ask(self, request: RequestKey, state: _Request) -> list[Instruction]:
        room = self._window - state.outstanding // self._layers
        num = min(state.ready - state.asked, room)
        if num <= 0:
            return []
        pull = PullKv(request=request, first_token=state.asked, num_tokens=num)
        state.asked += num
        return [Send(state.prefill, pull)]

    def landed(self, peer: str, chunk: KvChunk) -> bool:
        """A chunk arrived: settled() says when it was written. False: not asked for, late or
        repeated; its bytes are to be dropped."""
        state = self._of(peer, chunk.request)
        if state is None or not self.wants(peer, chunk):
            return False
        for spans in _layers_of(state, chunk):
            spans.add(chunk.first_token, chunk.first_token + chunk.num_tokens)
        state.unsettled += 1
        return True

    def wants(self, peer: str, chunk: KvChunk) -> bool:
        """Whether landed() would take it now."""
        state = self._of(peer, chunk.request)
        if state is None or state.running or not self._asked_for(chunk, state):
            return False
        first, end = chunk.first_token, chunk.first_token + chunk.num_tokens
        return not any(spans.overlaps(first, end) for spans in _layers_of(state, chunk))

    def _asked_for(self, chunk: KvChunk, state: _Request) -> bool:
        return (
            chunk.num_tokens > 0
            and chunk.num_layers > 0
            and state.cached <= chunk.first_token <= state.asked - chunk.num_tokens
            and 0 <= chunk.first_layer <= self._layers - chunk.num_layers
        )

    def settled(self, request: RequestKey) -> list[Instruction]:
        """A chunk that had landed was written to its pages, on all ranks."""
        state = self._requests.get(request)
        if state is None:
            return []
        state.unsettled -= 1
        return [*self._ask(request, state), *self._start(request, state)]

    def handed_off(self, peer: str, message: HandOff) -> list[Instruction]:
        """The request's state arrived; chunks may still be under way."""
        state = self._of(peer, message.request)
        if state is None:
            return [Send(peer, PeerFailed(request=message.request))]
        if state.state is not None:
            return []
        num_prompt = len(message.token_ids)
        fits = 0 < num_prompt <= state.num_tokens and state.cached <= num_prompt
        if not fits or not message.choices:
            return self.failed(message.request, InternalError("prefill sent a bad state"))
        state.state = message
        return self._start(message.request, state)

    def _start(self, request: RequestKey, state: _Request) -> list[Instruction]:
        done = state.state is not None and state.asked >= len(state.state.token_ids)
        if state.running or not done or state.outstanding or state.unsettled or not state.state:
            return []
        state.running = True
        landed = Send(state.prefill, HandedOver(request=request))
        choices = tuple(c for c in state.state.choices if c[0] not in state.stopped)
        if not choices:
            return [landed, *self.ended(request)]
        return [landed, StartDecode(replace(state.state, choices=choices))]

    def stop_choice(self, message: StopChoice) -> list[Instruction]:
        """The gateway needs no more of a choice, which may still be on its way here."""
        state = self._requests.get(message.request)
        if state is None:
            return []
        state.stopped.add(message.choice)
        return [EndChoice(message.request, message.choice)] if state.running else []

    def ended(self, request: RequestKey) -> list[Instruction]:
        """Finished or cancelled. A key that never came is buried all the same."""
        self._ended.add(request)
        return [] if self._requests.pop(request, None) is None else [Free(request)]

    def failed(self, request: RequestKey, error: EpdError) -> list[Instruction]:
        """The attempt cannot go on here: both other sides are told."""
        state = self._requests.get(request)
        if state is None:
            return []
        told: list[Instruction] = [
            Send(
                state.gateway,
                failure(request, error),
            )
        ]
        if not state.running:
            told.append(Send(state.prefill, PeerFailed(request=request)))
        return [*told, *self.ended(request)]

    def peer_failed(self, peer: str, request: RequestKey) -> list[Instruction]:
        """Prefill ended the attempt on its side and has told the gateway."""
        state = self._of(peer, request)
        return [] if state is None or state.running else self.ended(request)

    def peer_lost(self, peer: str) -> list[Instruction]:
        """A prefill worker died: what it still owed will not come."""
        lost = [
            key
            for key, state in self._requests.items()
            if state.prefill == peer and not state.running
        ]
        return [i for key in lost for i in self.failed(key, Unavailable(f"{peer} died"))]

    def gateway_lost(self, gateway: str) -> list[Instruction]:
        """A gateway died: its leases end."""
        return [i for key in self.held_for(gateway) for i in self.ended(key)]

    def held_for(self, gateway: str) -> tuple[RequestKey, ...]:
        """The attempts that this gateway answers for."""
        return tuple(key for key, state in self._requests.items() if state.gateway == gateway)

    def _of(self, peer: str, request: RequestKey) -> _Request | None:
        state = self._requests.get(request)
        return state if state is not None and state.prefill == peer else None

    @property
    def num_requests(self) -> int:
        """Reservations held here, running ones included."""
        return len(self._requests)


def _layers_of(state: _Request, chunk: KvChunk) -> list[Spans]:
    return state.landed[chunk.first_layer : chunk.first_layer + chunk.num_layers]
