"""The decode stage: KV and state in, tokens out."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from epd.engine import Engine, EngineRequest, Role, StepResult
from epd.engine.ranks.tasks import Task
from epd.errors import EpdError, InternalError, Unavailable
from epd.handoff import KvReceiver, StartDecode
from epd.models.laps import Laps
from epd.prefix import PREFIX_TOKENS
from epd.transfer.incoming import Incoming
from epd.types import Member, RequestKey
from epd.wire.links import Delivery
from epd.wire.messages import (
    HandOff,
    KvChunk,
    KvReady,
    KvTaken,
    Reserve,
    Reserved,
)
from epd.workers.language import LanguageCore
from epd.workers.parts import Parts, Taking
from epd.workers.station import Station
from epd.workers.turns import Turn


class _Last:
    """Calls once it was called so many times, from any threads."""

    def __init__(self, times: int, call: Callable[[], None]) -> None:
        self._left = iter(range(times - 1, -1, -1))
        self._call = call

    def one(self) -> None:
        """Once."""
        if next(self._left) == 0:
            self._call()


class DecodeCore(LanguageCore):
    """Assembles the engine, the KV hand-off and the links."""

    def __init__(
        self,
        station: Station,
        engine: Engine,
        kv: KvReceiver,
        incoming: Incoming | None = None,
        laps: Laps | None = None,
    ) -> None:
        super().__init__(station, engine, kv, incoming, laps)
        self._kv = kv
        self._parts = Parts(engine.exchange)
        self._handlers |= {
            Reserve: lambda peer, m, _: self._on_reserve(peer, m),
            KvReady: lambda peer, m, _: self._on_ready(peer, m),
            KvChunk: self._on_chunk,
            HandOff: lambda peer, m, _: self._on_state(peer, m),
        }
        self._actions |= {StartDecode: lambda start: self._start(start.state)}

    # ---- events

    def _on_reserve(self, gateway: str, reserve: Reserve) -> None:
        key = reserve.request
        if self._kv.refuses(key):
            return
        prefix = reserve.prefix
        whole = 0 if prefix is None else len(prefix.blocks) * PREFIX_TOKENS
        cached = self._admission.reserve(
            gateway, key, reserve.num_tokens, prefix, most_cached=whole
        )
        if cached is None:
            return
        self._times.began(key)
        self._kv.reserved(gateway, key, reserve.prefill, reserve.num_tokens, cached)
        self._deadlines.set(key, reserve.deadline_ms, time.monotonic())
        self._station.send(gateway, Reserved(request=key, cached_tokens=cached))

    def _on_ready(self, prefill: str, ready: KvReady) -> None:
        self._times.offered(ready.request)
        self._do(self._kv.ready(prefill, ready))

    def _on_state(self, prefill: str, state: HandOff) -> None:
        self._times.handed_off(state.request)
        self._do(self._kv.handed_off(prefill, state))

    def _is_here(self, delivery: Delivery) -> bool:
        """Rank 0's bytes and those of the others come at once."""
        here, chunk = super()._is_here(delivery), delivery.message
        member = self._station.members.get(delivery.sender)
        if not isinstance(chunk, KvChunk) or member is None:
            return here
        wanted = self._kv.wants(member.name, chunk) and self._parts.fits(member, chunk.payload)
        others = not wanted or self._parts.are_here(member, chunk)
        return here and others

    def _dispatch(self, delivery: Delivery) -> None:
        super()._dispatch(delivery)
        if isinstance(delivery.message, KvChunk):
            self._parts.discard(delivery.sender, delivery.message.payload)

    def _on_chunk(self, prefill: str, chunk: KvChunk, frame: memoryview | None) -> None:
        member = self._station.members.get(prefill)
        taken = KvTaken(slot=chunk.payload.number, request=chunk.request)
        unread = self._when_unread(chunk.payload, prefill, taken)
        if member is None or not self._kv.landed(prefill, chunk):
            unread()
            return
        ranks = chunk.payload.ranks
        if not self._parts.fits(member, chunk.payload):
            unread()
            error = InternalError(f"parts of {ranks} ranks for {self._engine.exchange.num_ranks}")
            self._failed(prefill, chunk, error)
            return
        last = _Last(1 if ranks == 1 else 2, unread)
        task: Task | None = None
        try:
            kv = self._incoming.take(member, chunk.payload, frame, last.one)
            task = self._write(member, chunk, kv.tensor)
            kv.check()
        except EpdError as error:
            self._failed(prefill, chunk, error)
        else:
            if task is None:
                self._settled(chunk)
        if task is not None:
            self._parts.watch(Taking(prefill, chunk, task, last.one))
        elif ranks > 1:
            last.one()  # the other ranks were told nothing

    def _write(self, member: Member, chunk: KvChunk, kv: torch.Tensor) -> Task | None:
        """Here, or here and on all other ranks, which say when they are done."""
        if chunk.payload.ranks > 1:
            return self._parts.take(member, chunk, kv)
        self._engine.exchange.write(chunk.request, chunk.first_token, chunk.first_layer, kv)
        return None

    def _end_parts(self) -> None:
        """Chunks that the other ranks have, or could not take."""
        for parts in self._parts.ended():
            parts.unread()
            if parts.task.error is None:
                self._settled(parts.chunk)
            else:
                self._failed(parts.prefill, parts.chunk, parts.task.error)

    def _failed(self, prefill: str, chunk: KvChunk, error: EpdError) -> None:
        if not isinstance(error, Unavailable):
            error = InternalError(f"{prefill} sent bad KV: {error}")
        self._do(self._kv.failed(chunk.request, error))

    def _settled(self, chunk: KvChunk) -> None:
        num_bytes = chunk.payload.nbytes * chunk.payload.ranks
        self._times.kv_landed(chunk.request, num_bytes)
        self._do(self._kv.settled(chunk.request))

    def peer_lost(self, name: str) -> None:
        """A prefill worker died."""
        self._parts.peer_lost(name)
        super().peer_lost(name)

    # ---- work

    @property
    def stuck(self) -> bool:
        """Something may still read what prefill waits for; nothing is sent in bulk."""
        return self._incoming.waits or self._parts.any

    def step(self, turn: Turn = Turn.ALONE) -> None:
        """One forward."""
        self._take_arrived()
        self._end_parts()
        self._end_late()
        self._give_back()
        if self._engine.has_work:
            self._complete(self._engine.step())

    def _complete(self, result: StepResult) -> None:
        self._laps.settle()  # who ends here is told to have started
        for key in result.ended:
            self._tell(self._times.ended(key))
        self._send_tokens(result.tokens)
        for key in result.ended:
            self._do(self._kv.ended(key))
        for key, error in result.failed:
            self._do(self._kv.failed(key, error))
        self._admission.stepped()

    def _start(self, state: HandOff) -> None:
        request = EngineRequest(
            key=state.request,
            token_ids=list(state.token_ids),
            positions=torch.empty(0, dtype=torch.float64),
            position_delta=state.position_delta,
            sampling=state.sampling,
            first_index=state.first_index,
            role=Role.DECODE,
            choices=state.choices,
        )
        try:
            self._engine.start(request)
        except EpdError as error:
            self._do(self._kv.failed(state.request, error))
        else:
            # KV may still be on its way into its pages: then decoding waits for it on the device.
            self._laps.end(self._laps.begin(), partial(self._started, state.request))

    def _started(self, request: RequestKey, _: float, ended: float) -> None:
        self._tell(self._times.started(request, ended))
