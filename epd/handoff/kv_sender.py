"""The prefill side of P->D: KV is offered as it is computed and kept until decode has all of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from epd.errors import EpdError, InternalError, Unavailable
from epd.handoff.instructions import (
    DropSends,
    EndChoice,
    Free,
    Instruction,
    Send,
    SendKv,
    failure,
)
from epd.handoff.tombstones import Tombstones
from epd.types import RequestKey
from epd.wire.messages import HandOff, KvReady, PeerFailed, PullKv, StopChoice


@dataclass(slots=True)
class _Request:
    gateway: str
    decode: str | None
    computed: int = 0
    stopped: set[int] = field(default_factory=set)


class KvSender:
    """Owner of the requests that this prefill (or fused) worker has admitted."""

    def __init__(self) -> None:
        self._requests: dict[RequestKey, _Request] = {}
        self._ended = Tombstones()

    def refuses(self, request: RequestKey) -> bool:
        """True for an attempt that ended here or is here already: its Admit is stale."""
        return request in self._ended or request in self._requests

    def admitted(self, gateway: str, request: RequestKey, decode: str | None) -> None:
        """A request was admitted; `decode` None: it stays here."""
        self._requests[request] = _Request(gateway, decode)

    def gateway_of(self, request: RequestKey) -> str | None:
        """Whom to send the request's tokens to; None when it has ended."""
        state = self._requests.get(request)
        return state.gateway if state else None

    def computed(self, request: RequestKey, num_tokens: int) -> list[Instruction]:
        """KV of the first `num_tokens` prompt tokens exists."""
        state = self._requests.get(request)
        if state is None or state.decode is None or num_tokens <= state.computed:
            return []
        state.computed = num_tokens
        return [Send(state.decode, KvReady(request=request, num_tokens=num_tokens))]

    def sampled(self, state: HandOff) -> list[Instruction]:
        """The first tokens were sampled; `state` names the choices that did not end with them.

        Those that the gateway has stopped do not go on at decode. Where none is left the request
        has ended, and its gateway knows that.
        """
        request = self._requests.get(state.request)
        if request is None or request.decode is None:
            return []
        choices = tuple(c for c in state.choices if c[0] not in request.stopped)
        if not choices:
            return self.ended(state.request)
        return [Send(request.decode, replace(state, choices=choices))]

    def stop_choice(self, message: StopChoice) -> list[Instruction]:
        """The gateway needs no more of a choice. An engine that keeps it is told at once."""
        state = self._requests.get(message.request)
        if state is None:
            return []
        if state.decode is None:
            return [EndChoice(message.request, message.choice)]
        state.stopped.add(message.choice)
        return []

    def pull(self, peer: str, pull: PullKv) -> list[Instruction]:
        """Decode asks for KV. Only the worker named by the gateway gets any."""
        state = self._requests.get(pull.request)
        if state is None or state.decode != peer:
            return [Send(peer, PeerFailed(request=pull.request))]
        if pull.num_tokens < 1 or not 0 <= pull.first_token <= state.computed - pull.num_tokens:
            return self.failed(
                pull.request, InternalError("decode asked for KV that does not exist")
            )
        return [SendKv(peer, pull.request, pull.first_token, pull.num_tokens)]

    def landed(self, peer: str, request: RequestKey) -> list[Instruction]:
        """Decode has everything."""
        state = self._requests.get(request)
        return self.ended(request) if state is not None and state.decode == peer else []

    def ended(self, request: RequestKey) -> list[Instruction]:
        """Finished, cancelled or handed over. A key that never came is buried all the same."""
        self._ended.add(request)
        if self._requests.pop(request, None) is None:
            return []
        return [DropSends(request), Free(request)]

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
        if state.decode is not None:
            told.append(Send(state.decode, PeerFailed(request=request)))
        return [*told, *self.ended(request)]

    def peer_failed(self, peer: str, request: RequestKey) -> list[Instruction]:
        """Decode ended the attempt on its side and has told the gateway."""
        return self.landed(peer, request)

    def peer_lost(self, peer: str) -> list[Instruction]:
        """A decode worker died."""
        lost = [key for key, state in self._requests.items() if state.decode == peer]
        return [i for key in lost for i in self.failed(key, Unavailable(f"{peer} died"))]

    def gateway_lost(self, gateway: str) -> list[Instruction]:
        """A gateway died: its leases end."""
        return [i for key in self.held_for(gateway) for i in self.ended(key)]

    def held_for(self, gateway: str) -> tuple[RequestKey, ...]:
        """The attempts that this gateway answers for."""
        return tuple(key for key, state in self._requests.items() if state.gateway == gateway)

    @property
    def num_requests(self) -> int:
        """Requests held here."""
        return len(self._requests)
