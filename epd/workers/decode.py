"""The decode stage: KV and state in, tokens out."""

from __future__ import annotations

from typing import Any

import torch

from epd.engine import Engine, EngineRequest, Role, StepResult
from epd.errors import EpdError, InternalError
from epd.handoff import Free, Instruction, KvReceiver, Send, StartDecode
from epd.transfer.incoming import Incoming
from epd.types import RequestKey
from epd.wire.links import Delivery
from epd.wire.messages import (
    Cancel,
    HandOff,
    KvChunk,
    KvReady,
    KvTaken,
    PeerFailed,
    Reserve,
    Reserved,
)
from epd.workers.language import Admission, send_tokens
from epd.workers.station import Handler, Station


class DecodeCore:
    """Assembles the engine, the KV hand-off and the links. Step thread only."""

    def __init__(self, station: Station, engine: Engine, kv: KvReceiver) -> None:
        self._station = station
        self._engine = engine
        self._kv = kv
        self._incoming = Incoming()
        self._admission = Admission(engine, station.links)
        self._handlers: dict[type[Any], Handler] = {
            Reserve: lambda peer, m, _: self._on_reserve(peer, m),
            KvReady: lambda peer, m, _: self._do(self._kv.ready(peer, m)),
            KvChunk: self._on_chunk,
            HandOff: lambda peer, m, _: self._do(self._kv.handed_off(peer, m)),
            PeerFailed: lambda peer, m, _: self._do(self._kv.peer_failed(peer, m.request)),
            Cancel: lambda peer, m, _: self._do(self._kv.ended(m.request)),
        }

    # ---- events

    def receive(self, delivery: Delivery) -> None:
        """A message of this stage."""
        self._station.dispatch(self._handlers, delivery)

    def local(self, event: object) -> None:
        """Nothing but messages comes here."""
        raise AssertionError(event)

    def peer_lost(self, name: str) -> None:
        """A prefill worker died."""
        self._incoming.forget(name)
        self._do(self._kv.peer_lost(name))

    def gateway_lost(self, name: str) -> None:
        """Its leases end."""
        self._admission.gateway_lost(name)
        self._do(self._kv.gateway_lost(name))

    def _on_reserve(self, gateway: str, reserve: Reserve) -> None:
        key = reserve.request
        if self._kv.refuses(key):
            return
        if not self._admission.reserve(gateway, key, reserve.num_tokens):
            return
        self._kv.reserved(gateway, key, reserve.prefill, reserve.num_tokens, 0)
        self._station.send(gateway, Reserved(request=key, cached_tokens=0))

    def _on_chunk(self, prefill: str, chunk: KvChunk, frame: memoryview | None) -> None:
        member = self._station.members.get(prefill)
        try:
            if member is None or not self._kv.landed(prefill, chunk):
                return
            kv = self._incoming.take(member, chunk.payload, frame)
            self._engine.write_kv(chunk.request, chunk.first_token, chunk.first_layer, kv)
        except EpdError as error:
            blamed = InternalError(f"{prefill} sent bad KV: {error}")
            self._do(self._kv.failed(chunk.request, blamed))
        else:
            self._do(self._kv.settled(chunk.request))
        finally:
            if chunk.payload.slot >= 0:
                taken = KvTaken(slot=chunk.payload.slot, request=chunk.request)
                self._station.send(prefill, taken)

    # ---- work

    @property
    def has_work(self) -> bool:
        """A forward is due."""
        return self._engine.has_work

    @property
    def stuck(self) -> bool:
        """Decode sends nothing in bulk."""
        return False

    def step(self) -> None:
        """One forward."""
        if self._engine.has_work:
            self._complete(self._engine.step())

    def _complete(self, result: StepResult) -> None:
        send_tokens(self._station.links, result.tokens, self._kv.gateway_of)
        for run in result.tokens:
            if run.finish_reason is not None:
                self._do(self._kv.ended(run.request))
        for key, error in result.failed:
            self._do(self._kv.failed(key, error))

    def _start(self, state: HandOff) -> None:
        request = EngineRequest(
            key=state.request,
            token_ids=list(state.token_ids),
            positions=torch.empty(0, dtype=torch.int64),
            position_delta=state.position_delta,
            sampling=state.sampling,
            first_index=state.first_index,
            embeddings=None,
            role=Role.DECODE,
        )
        try:
            self._engine.start(request)
        except EpdError as error:
            self._do(self._kv.failed(state.request, error))

    def _do(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self._station.send(to, message)
                case StartDecode(state):
                    self._start(state)
                case Free(request):
                    self._free(request)
                case _:
                    raise AssertionError(instruction)

    def _free(self, request: RequestKey) -> None:
        self._engine.release(request)
        self._admission.given_back()

    def gauges(self) -> dict[str, int]:
        """What the worker holds."""
        return {
            "kv_blocks_used": self._engine.used_blocks,
            "requests": self._kv.num_requests,
        }

    def close(self) -> None:
        """Let go of mapped shared memory."""
        self._incoming.close()
