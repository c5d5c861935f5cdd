"""Stub engines around the real KV machines: prefill, fused and decode workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from epd.cluster import asked_as
from epd.errors import InternalError, Overloaded
from epd.handoff import (
    DropSends,
    EndChoice,
    Free,
    KvReceiver,
    KvSender,
    RowReceiver,
    Send,
    SendKv,
    StartDecode,
    first_rows,
)
from epd.types import RequestKey, Stage, TokenLogprobs
from epd.wire import messages as m
from tests.handoff.stub_workers import PAYLOAD, Labels, Worker

if TYPE_CHECKING:
    from tests.handoff.simulation import Simulation

LAYERS = 2
ROW_BYTES = 4


class Generating(Worker):
    """A worker whose requests generate: every live choice gets a token per step."""

    def __init__(
        self, sim: Simulation, name: str, capacity: int, owner: KvSender | KvReceiver
    ) -> None:
        super().__init__(sim, name, capacity)
        self.owner = owner
        self.live: dict[RequestKey, dict[int, int]] = {}  # the index of each choice's last token

    def generate(self, key: RequestKey, num_prompt: int, max_tokens: int) -> None:
        """One step, for which KV grows where it has to, or the request is given back."""
        self.sim.activity += 1
        live = self.live[key]
        while num_prompt + len(live) * max_tokens > self.pool.held[key]:
            if not self.pool.grow(key):
                self.do(self.owner.failed(key, Overloaded("no KV block is left")))
                return
        if self.emit(key, max_tokens):
            self.do(self.owner.ended(key))

    def emit(self, key: RequestKey, max_tokens: int) -> bool:
        """The next token of every live choice. True: all of them have ended."""
        live = self.live[key]
        runs = [self.sim.run(key, choice, i + 1, max_tokens) for choice, i in live.items()]
        for run in runs:
            live[run.choice] = run.first_index
            if run.finish_reason is not None:
                del live[run.choice]
        self.send(self.owner.gateway_of(key) or "", m.Tokens(runs=tuple(runs)))
        return not live

    def end_choice(self, end: EndChoice) -> None:
        """As Engine.end_choice: unknown ones are ignored, a request ends with its last."""
        live = self.live.get(end.request, {})
        if live.pop(end.choice, None) is not None and not live:
            self.do(self.owner.ended(end.request))

    def receive_end(self, peer: str, message: Any) -> None:
        """What ends a request, or one choice of it, on either side."""
        match message:
            case m.PeerFailed():
                self.do(self.owner.peer_failed(peer, message.request))
            case m.Cancel():
                self.do(self.owner.ended(message.request))
            case m.StopChoice():
                self.do(self.owner.stop_choice(message))
            case _:
                raise AssertionError(message)

    def gateway_lost(self, name: str) -> None:
        self.do(self.owner.gateway_lost(name))

    def holding(self, gateway: str) -> m.Holding:
        return m.Holding(requests=self.owner.held_for(gateway), items=())

    def do(self, instructions: list[Any]) -> None:
        raise AssertionError(instructions)


class SimPrefill(Generating):
    """Computes a few tokens of KV per step, up to the first row that has not landed."""

    stages: tuple[Stage, ...] = (Stage.PREFILL,)

    def __init__(self, sim: Simulation, name: str, capacity: int) -> None:
        self.kv = KvSender()
        super().__init__(sim, name, capacity, self.kv)
        quota = sim.quota_rows * ROW_BYTES
        self.rows = RowReceiver(quota_bytes=quota, part_bytes=2 * ROW_BYTES)
        self.running: dict[RequestKey, m.Admit] = {}
        self.computed: dict[RequestKey, int] = {}
        self.landed: dict[RequestKey, set[tuple[int, int]]] = {}
        self.decoding: dict[RequestKey, None] = {}  # fused

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
            case _:
                self.receive_end(peer, message)

    def peer_lost(self, name: str) -> None:
        self.do([*self.kv.peer_lost(name), *self.rows.peer_lost(name)])

    def admit(self, gateway: str, admit: m.Admit) -> None:
        key = admit.request
        if self.kv.refuses(key):
            return
        if not self.pool.reserve(key, admit.num_tokens):
            self.refuse(gateway, key, admit.num_tokens)
            return
        self.kv.admitted(gateway, key, admit.decode)
        scored = admit.sampling.prompt_logprobs is not None
        cached = self.cached(key, 0 if scored else admit.prompt.num_tokens - 1, admit.prefix)
        first = admit.sampling.first_choice
        choices = range(first, first + admit.sampling.n)
        self.live[key] = dict.fromkeys(choices, admit.first_index - 1)
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
        assert labels == tuple((asked_as(part.request.request_id), index, row) for row in rows)
        spots = {(index, row) for row in rows}
        assert not spots & self.landed[part.request], "a row landed twice"
        self.landed[part.request] |= spots
        self.do(self.rows.settled(part))

    def work(self) -> None:
        for key in list(self.decoding):
            if key in self.decoding:
                admit = self.running[key]
                own = admit.prompt.num_tokens - admit.first_index
                self.generate(key, own, admit.sampling.max_tokens)
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
        if admit.sampling.prompt_logprobs is not None:
            self.score(key, range(at + 1, min(end + 1, admit.prompt.num_tokens)))
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

    def score(self, key: RequestKey, tokens: range) -> None:
        """Logprobs of the tokens that a chunk tells about."""
        if tokens:
            scores = tuple(TokenLogprobs(logprob=-float(token)) for token in tokens)
            told = m.PromptLogprobs(request=key, first_token=tokens[0], logprobs=scores)
            self.send(self.kv.gateway_of(key) or "", told)

    def sample(self, key: RequestKey, admit: m.Admit) -> None:
        ended = self.emit(key, admit.sampling.max_tokens)
        if ended:
            self.do(self.kv.ended(key))
        elif admit.decode is None:
            self.decoding[key] = None
        else:
            tokens = {c: self.sim.token(key, c, index) for c, index in self.live[key].items()}
            state = m.HandOff(
                request=key,
                token_ids=tuple(admit.prompt.token_ids()),
                choices=tuple(tokens.items()),
                position_delta=0,
                sampling=admit.sampling,
                first_index=admit.first_index,
            )
            self.do(self.kv.sampled(state))

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
                case EndChoice():
                    self.end_choice(instruction)
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
        mine = (self.running, self.computed, self.landed, self.decoding)
        for held in (self.pool.held, self.live, *mine):
            held.pop(request, None)
        self.do(self.rows.ended(request))
        self.given_back()

    def check_nothing_held(self) -> None:
        super().check_nothing_held()
        assert self.kv.num_requests == 0 and self.rows.num_requests == 0
        assert self.rows.held_bytes == 0
        assert not self.landed and not self.live


class SimFused(SimPrefill):
    """Prefill and decode in one."""

    stages = (Stage.PREFILL, Stage.DECODE)


class SimDecode(Generating):
    """Takes KV and state, then generates."""

    stages = (Stage.DECODE,)

    def __init__(self, sim: Simulation, name: str, capacity: int) -> None:
        self.kv = KvReceiver(LAYERS, window_tokens=sim.window)
        super().__init__(sim, name, capacity, self.kv)
        self.pages: dict[RequestKey, set[tuple[int, int]]] = {}
        self.running: dict[RequestKey, m.HandOff] = {}

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
            case _:
                self.receive_end(peer, message)

    def peer_lost(self, name: str) -> None:
        self.do(self.kv.peer_lost(name))

    def reserve(self, gateway: str, message: m.Reserve) -> None:
        key = message.request
        if self.kv.refuses(key):
            return
        if not self.pool.reserve(key, message.num_tokens):
            self.refuse(gateway, key, message.num_tokens)
            return
        cached = self.cached(key, self.sim.of(key.request_id).prompt, message.prefix)
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
                state = self.running[key]
                own = len(state.token_ids) - state.first_index
                self.generate(key, own, state.sampling.max_tokens)

    def do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self.send(to, message)
                case StartDecode(state):
                    want = {(t, i) for t in range(len(state.token_ids)) for i in range(LAYERS)}
                    assert self.pages[state.request] == want, "decode starts on missing KV"
                    for choice, token in state.choices:
                        assert token == self.sim.token(state.request, choice, state.first_index)
                    self.running[state.request] = state
                    live = {choice: state.first_index for choice, _ in state.choices}
                    self.live[state.request] = live
                case EndChoice():
                    self.end_choice(instruction)
                case Free(request):
                    self.free(request)
                case _:
                    raise AssertionError(instruction)

    def free(self, request: RequestKey) -> None:
        for held in (self.pool.held, self.pages, self.running, self.live):
            held.pop(request, None)
        self.given_back()

    def check_nothing_held(self) -> None:
        super().check_nothing_held()
        assert self.kv.num_requests == 0
        assert not self.pages and not self.live
