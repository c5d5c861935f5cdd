"""The decode side of P->D: pulls KV as prefill offers it, and starts when all of it is here."""

from __future__ import annotations

from dataclasses import dataclass, field

from epd.errors import EpdError, InternalError, Unavailable
from epd.handoff.instructions import Free, Instruction, Send, StartDecode, failure
from epd.handoff.tombstones import Tombstones
from epd.types import RequestKey
from epd.wire.messages import (
    HandedOver,
    HandOff,
    KvChunk,
    KvReady,
    PeerFailed,
    PullKv,
)


@dataclass(slots=True)
class _Request:
    gateway: str
    prefill: str
    num_tokens: int
    asked: int
    ready: int = 0
    landed: int = 0  # token-layers
    outstanding: int = 0  # token-layers asked for and not landed
    seen: set[tuple[int, int]] = field(default_factory=set)
    state: HandOff | None = None
    running: bool = False


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
        self._requests[request] = _Request(gateway, prefill, num_tokens, asked=cached_tokens)

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
        pulls: list[Instruction] = []
        while state.asked < state.ready:
            room = self._window - state.outstanding // self._layers
            num = min(state.ready - state.asked, room)
            if num <= 0:
                break
            pull = PullKv(request=request, first_token=state.asked, num_tokens=num)
            pulls.append(Send(state.prefill, pull))
            state.asked += num
            state.outstanding += num * self._layers
        return pulls

    def landed(self, peer: str, chunk: KvChunk) -> bool:
        """A chunk arrived. False: not asked for, late or repeated; its bytes are to be dropped."""
        state = self._of(peer, chunk.request)
        if state is None or state.running:
            return False
        inside = (
            chunk.first_token >= 0
            and chunk.num_tokens > 0
            and chunk.num_layers > 0
            and chunk.first_token + chunk.num_tokens <= state.asked
            and 0 <= chunk.first_layer <= self._layers - chunk.num_layers
        )
        corner = (chunk.first_token, chunk.first_layer)
        area = chunk.num_tokens * chunk.num_layers
        if not inside or corner in state.seen or area > state.outstanding:
            return False
        state.seen.add(corner)
        state.landed += area
        state.outstanding -= area
        return True

    def settled(self, request: RequestKey) -> list[Instruction]:
        """The chunk was written to its pages."""
        state = self._requests.get(request)
        return [] if state is None else [*self._ask(request, state), *self._start(request, state)]

    def handed_off(self, peer: str, message: HandOff) -> list[Instruction]:
        """The request's state arrived; chunks may still be under way."""
        state = self._of(peer, message.request)
        if state is None:
            return [Send(peer, PeerFailed(request=message.request))]
        if state.state is not None:
            return []
        if not 0 < message.num_prompt_tokens <= min(state.num_tokens, len(message.token_ids) - 1):
            return self.failed(message.request, InternalError("prefill sent a bad state"))
        state.state = message
        return self._start(message.request, state)

    def _start(self, request: RequestKey, state: _Request) -> list[Instruction]:
        done = state.state is not None and state.asked >= state.state.num_prompt_tokens
        if state.running or not done or state.outstanding or state.state is None:
            return []
        state.running = True
        state.seen.clear()
        return [Send(state.prefill, HandedOver(request=request)), StartDecode(state.state)]

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
        lost = [key for key, state in self._requests.items() if state.gateway == gateway]
        return [i for key in lost for i in self.ended(key)]

    def _of(self, peer: str, request: RequestKey) -> _Request | None:
        state = self._requests.get(request)
        return state if state is not None and state.prefill == peer else None

    @property
    def num_requests(self) -> int:
        """Reservations held here, running ones included."""
        return len(self._requests)
