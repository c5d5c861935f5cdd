"""Stub engines around the real KV machines: prefill, fused and decode workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from epd.errors import InternalError, Overloaded
from epd.handoff import (
    DropSends,
    Free,
    KvReceiver,
    KvSender,
    RowReceiver,
    Send,
    SendKv,
    StartDecode,
    first_rows,
)
from epd.types import RequestKey, Stage
from epd.wire import messages as m
from tests.handoff.stub_workers import PAYLOAD, Labels, Worker

if TYPE_CHECKING:
    from tests.handoff.simulation import Simulation

LAYERS = 2
ROW_BYTES = 4


class SimPrefill(Worker):
    """Computes a few tokens of KV per step, up to the first row that has not landed."""

    stages: tuple[Stage, ...] = (Stage.PREFILL,)

    def __init__(self, sim: Simulation, name: str, capacity: int) -> None:
        super().__init__(sim, name, capacity)
        self.kv = KvSender()
        quota = sim.quota_rows * ROW_BYTES
        self.rows = RowReceiver(quota_bytes=quota, part_bytes=2 * ROW_BYTES)
        self.running: dict[RequestKey, m.Admit] = {}
        self.computed: dict[RequestKey, int] = {}
        self.landed: dict[RequestKey, set[tuple[int, int]]] = {}
        self.decoding: dict[RequestKey, int] = {}  # fused: index of the last token

    def receive(self, peer: str, message: Any, labels: Labels) -> None:
        match message:
            case m.Admit():
                self.admit(peer, message)
            case m.EmbeddingData():
                self.take(peer, message, labels)
            case m.RowsLost():
                self.do(self.rows.lost(peer, message))
            case m.ItemMoved():
                self.do(self.rows.moved(message))
            case m.PullKv():
                self.do(self.kv.pull(peer, message))
            case m.HandedOver():
                self.do(self.kv.landed(peer, message.request))
            case m.PeerFailed():
                self.do(self.kv.peer_failed(peer, message.request))
            case m.Cancel():
                self.do(self.kv.ended(message.request))
            case _:
                raise AssertionError(message)

    def peer_lost(self, name: str) -> None:
        self.do([*self.kv.peer_lost(name), *self.rows.peer_lost(name)])

    def gateway_lost(self, name: str) -> None:
        self.do(self.kv.gateway_lost(name))

    def holding(self, gateway: str) -> m.Holding:
        return m.Holding(requests=self.kv.held_for(gateway), items=())

    def admit(self, gateway: str, admit: m.Admit) -> None:
        key = admit.request
        if self.kv.refuses(key):
            return
        if not self.pool.reserve(key, admit.num_tokens):
            self.refuse(gateway, key, admit.num_tokens)
            return
        self.kv.admitted(gateway, key, admit.decode)
        cached = self.cached(key, admit.prompt.num_tokens - 1)
        self.running[key], self.computed[key], self.landed[key] = admit, cached, set()
        self.send(gateway, m.Admitted(request=key, cached_tokens=cached))
        self.do(self.kv.computed(key, cached))
        sizes = [ROW_BYTES] * len(admit.prompt.items)
        needed = first_rows(admit.prompt, cached)
        self.do(self.rows.admitted(gateway, key, admit.prompt, sizes, needed))

    def take(self, peer: str, part: m.EmbeddingData, labels: Labels) -> None:
        if not self.rows.landed(peer, part):
            return
        if not labels:
            self.do(self.kv.failed(part.request, InternalError("bad rows")))
            return
        index, first = part.item.index, part.first_row
        rows = range(first, first + part.num_rows)
        assert labels == tuple((part.request.request_id, index, row) for row in rows)
        spots = {(index, row) for row in rows}
        assert not spots & self.landed[part.request], "a row landed twice"
        self.landed[part.request] |= spots
        self.do(self.rows.settled(part))

    def work(self) -> None:
        for key in list(self.decoding):
            if key in self.decoding:
                self.decode(key)
        for key in list(self.running):
            if self.advance(key):
                return

    def advance(self, key: RequestKey) -> bool:
        admit, at = self.running[key], self.computed[key]
        end = min(at + self.sim.stride, admit.prompt.num_tokens)
        end = next((i for i in range(at, end) if not self.has_row(key, admit, i)), end)
        if at == end:
            return False
        self.computed[key] = end
        self.sim.activity += 1
        self.do(self.kv.computed(key, end))
        self.do(self.rows.consumed(key, admit.prompt.rows_before(end)))
        if end == admit.prompt.num_tokens:
            self.sample(key, admit)
        return True

    def has_row(self, key: RequestKey, admit: m.Admit, token: int) -> bool:
        for index, (offset, item) in enumerate(
            zip(admit.prompt.offsets, admit.prompt.items, strict=True)
        ):
            row = token - offset
            if 0 <= row < item.layout.num_rows:
                return (index, row) in self.landed[key]
        return True

    def sample(self, key: RequestKey, admit: m.Admit) -> None:
        run = self.sim.run(key, admit.first_index, admit.sampling.max_tokens)
        self.send(self.kv.gateway_of(key) or "", m.Tokens(runs=(run,)))
        if run.finish_reason is not None:
            self.do(self.kv.ended(key))
        elif admit.decode is None:
            self.decoding[key] = run.first_index
        else:
            state = m.HandOff(
                request=key,
                token_ids=tuple(admit.prompt.token_ids()),
                choices=((run.choice, run.token_ids[0]),),
                position_delta=0,
                sampling=admit.sampling,
                first_index=run.first_index,
            )
            self.do(self.kv.sampled(state))

    def decode(self, key: RequestKey) -> None:
        """A fused worker goes on itself, and gives the youngest back when it is full."""
        admit, index = self.running[key], self.decoding[key]
        self.sim.activity += 1
        used = admit.prompt.num_tokens + index - admit.first_index + 1
        if used > self.pool.held[key] and not self.pool.grow(key):
            youngest = list(self.decoding)[-1]
            self.do(self.kv.failed(youngest, Overloaded("no KV block is left")))
            return
        run = self.sim.run(key, index + 1, admit.sampling.max_tokens)
        self.decoding[key] = index + 1
        self.send(self.kv.gateway_of(key) or "", m.Tokens(runs=(run,)))
        if run.finish_reason is not None:
            self.do(self.kv.ended(key))

    def do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self.send(to, message)
                case SendKv():
                    self.serve(instruction)
                case Free(request):
                    self.free(request)
                case DropSends(key):
                    self.drop_sends(key)
                case _:
                    raise AssertionError(instruction)

    def serve(self, kv: SendKv) -> None:
        end = kv.first_token + kv.num_tokens
        assert end <= self.computed[kv.request]
        for first in range(kv.first_token, end, self.sim.chunk):
            for layer in range(LAYERS):
                num = min(self.sim.chunk, end - first)
                chunk = m.KvChunk(
                    request=kv.request,
                    first_token=first,
                    num_tokens=num,
                    first_layer=layer,
                    num_layers=1,
                    payload=PAYLOAD,
                )
                labels = [(kv.request, first + i, layer) for i in range(num)]
                self.queue(kv.to, kv.request, chunk, tuple(labels))

    def free(self, request: RequestKey) -> None:
        for held in (self.pool.held, self.running, self.computed, self.landed, self.decoding):
            held.pop(request, None)
        self.do(self.rows.ended(request))
        self.given_back()

    def check_nothing_held(self) -> None:
        super().check_nothing_held()
        assert self.kv.num_requests == 0 and self.rows.num_requests == 0
        assert self.rows.held_bytes == 0
        assert not self.landed


class SimFused(SimPrefill):
    """Prefill and decode in one."""

    stages = (Stage.PREFILL, Stage.DECODE)


class SimDecode(Worker):
    """Generates one token per request and step; grows its KV, or gives the youngest back."""

    stages = (Stage.DECODE,)

    def __init__(self, sim: Simulation, name: str, capacity: int) -> None:
        super().__init__(sim, name, capacity)
        self.kv = KvReceiver(LAYERS, window_tokens=sim.window)
        self.pages: dict[RequestKey, set[tuple[int, int]]] = {}
        self.running: dict[RequestKey, tuple[m.HandOff, int]] = {}

    def receive(self, peer: str, message: Any, labels: Labels) -> None:
        match message:
            case m.Reserve():
                self.reserve(peer, message)
            case m.KvReady():
                self.do(self.kv.ready(peer, message))
            case m.KvChunk():
                self.take(peer, message, labels)
            case m.HandOff():
                self.do(self.kv.handed_off(peer, message))
            case m.PeerFailed():
                self.do(self.kv.peer_failed(peer, message.request))
            case m.Cancel():
                self.do(self.kv.ended(message.request))
            case _:
                raise AssertionError(message)

    def peer_lost(self, name: str) -> None:
        self.do(self.kv.peer_lost(name))

    def gateway_lost(self, name: str) -> None:
        self.do(self.kv.gateway_lost(name))

    def holding(self, gateway: str) -> m.Holding:
        return m.Holding(requests=self.kv.held_for(gateway), items=())

    def reserve(self, gateway: str, message: m.Reserve) -> None:
        key = message.request
        if self.kv.refuses(key):
            return
        if not self.pool.reserve(key, message.num_tokens):
            self.refuse(gateway, key, message.num_tokens)
            return
        cached = self.cached(key, self.sim.outcomes[key.request_id].prompt)
        self.pages[key] = {(t, layer) for t in range(cached) for layer in range(LAYERS)}
        self.kv.reserved(gateway, key, message.prefill, message.num_tokens, cached)
        self.send(gateway, m.Reserved(request=key, cached_tokens=cached))

    def take(self, peer: str, chunk: m.KvChunk, labels: Labels) -> None:
        if not self.kv.landed(peer, chunk):
            return
        if not labels:
            self.do(self.kv.failed(chunk.request, InternalError("bad KV")))
            return
        tokens = range(chunk.first_token, chunk.first_token + chunk.num_tokens)
        assert labels == tuple((chunk.request, token, chunk.first_layer) for token in tokens)
        spots = {(token, chunk.first_layer) for token in tokens}
        assert not spots & self.pages[chunk.request], "KV landed twice"
        self.pages[chunk.request] |= spots
        self.do(self.kv.settled(chunk.request))

    def work(self) -> None:
        for key in list(self.running):
            if key in self.running:
                self.decode(key)

    def decode(self, key: RequestKey) -> None:
        state, index = self.running[key]
        self.sim.activity += 1
        used = len(state.token_ids) + index - state.first_index + 1
        if used > self.pool.held[key] and not self.pool.grow(key):
            youngest = list(self.running)[-1]
            self.do(self.kv.failed(youngest, Overloaded("no KV block is left")))
            return
        run = self.sim.run(key, index + 1, state.sampling.max_tokens)
        self.running[key] = (state, index + 1)
        self.send(self.kv.gateway_of(key) or "", m.Tokens(runs=(run,)))
        if run.finish_reason is not None:
            self.do(self.kv.ended(key))

    def do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self.send(to, message)
                case StartDecode(state):
                    want = {(t, i) for t in range(len(state.token_ids)) for i in range(LAYERS)}
                    assert self.pages[state.request] == want, "decode starts on missing KV"
                    self.running[state.request] = (state, state.first_index)
                case Free(request):
                    self.free(request)
                case _:
                    raise AssertionError(instruction)

    def free(self, request: RequestKey) -> None:
        for held in (self.pool.held, self.pages, self.running):
            held.pop(request, None)
        self.given_back()

    def check_nothing_held(self) -> None:
        super().check_nothing_held()
        assert self.kv.num_requests == 0
        assert not self.pages
