"""The prefill stage, fused with decode or not: prompts and rows in, first tokens and KV out."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial

import torch

from epd.config import LanguageConfig
from epd.engine import Engine, EngineRequest, MultiModalEmbeddingData, Role, StepResult
from epd.engine.ranks.leading import LedModel
from epd.engine.ranks.tasks import Task
from epd.errors import EpdError, InternalError, Unavailable
from epd.handoff import DropSends, KvSender, RowReceiver, SendKv, failure, first_rows
from epd.models.language import LanguageModel
from epd.models.laps import Lap, Laps
from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing
from epd.types import Prompt, RequestKey, TokenRun
from epd.wire.messages import (
    Admit,
    Admitted,
    EmbeddingData,
    HandedOver,
    HandOff,
    ItemMoved,
    KvChunk,
    KvTaken,
    Payload,
    PromptLogprobs,
    PullKv,
    RowsLost,
    RowsTaken,
)
from epd.workers.bulk import BulkSender, Chunk
from epd.workers.language import LanguageCore
from epd.workers.parts import lent_at
from epd.workers.station import Station
from epd.workers.turns import Turn


class PrefillCore(LanguageCore):
    """Assembles the engine, both hand-offs and the links."""

    def __init__(
        self,
        station: Station,
        model: LanguageModel | LedModel,
        engine: Engine,
        rows: RowReceiver,
        outgoing: Outgoing,
        chunk_bytes: int,
        config: LanguageConfig,
        incoming: Incoming | None = None,
        laps: Laps | None = None,
    ) -> None:
        self._kv = KvSender()
        super().__init__(station, engine, self._kv, incoming, laps)
        self._model = model
        self._rows = rows
        self._outgoing = outgoing
        if engine.exchange.num_ranks > 1:
            outgoing.on_wiped = engine.exchange.led.wipe
            outgoing.on_withdrawn = engine.exchange.led.withdraw
        self._config = config
        self._bulk = BulkSender(station.links, outgoing, station.route, chunk_bytes)
        self._admits: dict[RequestKey, Admit] = {}
        self._deltas: dict[RequestKey, float] = {}
        self._merged: dict[RequestKey, MultiModalEmbeddingData] = {}
        # Of requests whose first token is still to come: the forward that it comes from.
        self._last_laps: dict[RequestKey, Lap] = {}
        self._handlers |= {
            Admit: lambda peer, m, _: self._on_admit(peer, m),
            EmbeddingData: self._on_rows,
            RowsLost: lambda peer, m, _: self._do(self._rows.lost(peer, m)),
            ItemMoved: lambda peer, m, _: self._do(self._rows.moved(m)),
            PullKv: lambda peer, m, _: self._do(self._kv.pull(peer, m)),
            KvTaken: lambda peer, m, _: self._outgoing.give_back(m.slot, by=peer),
            HandedOver: lambda peer, m, _: self._do(self._kv.landed(peer, m.request)),
        }
        self._actions |= {
            SendKv: lambda send: self._bulk.add(send.to, send.request, self._chunks(send)),
            DropSends: lambda drop: self._bulk.drop(drop.key),
        }

    # ---- events

    def peer_lost(self, name: str) -> None:
        """An encode or decode worker died."""
        self._bulk.peer_lost(name)
        if self._engine.exchange.num_ranks > 1:
            self._engine.exchange.led.part_from(name)
        super().peer_lost(name)
        self._do(self._rows.peer_lost(name))

    def _on_admit(self, gateway: str, admit: Admit) -> None:
        key = admit.request
        if self._kv.refuses(key):
            return
        all_logits = admit.sampling.prompt_logprobs is not None
        most = 0 if all_logits else admit.prompt.num_tokens - 1
        cached = self._admission.reserve(
            gateway, key, admit.num_tokens, admit.prefix, most_cached=most
        )
        if cached is None:
            return
        try:
            request = self._engine_request(admit)
            self._engine.start(request)
        except EpdError as error:
            self._engine.release(key)
            self._admission.freed(key)
            self._station.send(gateway, failure(key, error))
            return
        self._times.began(key, cached)
        self._kv.admitted(gateway, key, admit.decode)
        self._deadlines.set(key, admit.deadline_ms, time.monotonic())
        self._admits[key] = admit
        self._deltas[key] = request.position_delta
        self._station.send(gateway, Admitted(request=key, cached_tokens=cached))
        self._offer(key, cached)
        if request.embeddings is not None:
            self._merged[key] = request.embeddings
            needed = first_rows(admit.prompt, cached)
            self._times.ready(key, request.embeddings.ready_tokens, self._times.now())
            self._do(
                self._rows.admitted(gateway, key, admit.prompt, row_sizes(admit.prompt), needed)
            )

    def _offer(self, request: RequestKey, num_tokens: int) -> None:
        """Offer the KV: at once, or when all of the prompt has some."""
        whole = self._admits[request].prompt.num_tokens
        if self._config.overlap_handoff or num_tokens == whole:
            self._do(self._kv.computed(request, num_tokens))

    def _engine_request(self, admit: Admit) -> EngineRequest:
        positions, delta = self._model.positions(admit.prompt)
        return EngineRequest(
            key=admit.request,
            token_ids=admit.prompt.token_ids(),
            positions=positions,
            position_delta=delta,
            sampling=admit.sampling,
            first_index=admit.first_index,
            embeddings=self._embeddings(admit.prompt) if admit.prompt.items else None,
            role=Role.FULL if admit.decode is None else Role.PREFILL,
        )

    def _embeddings(self, prompt: Prompt) -> MultiModalEmbeddingData:
        """Rows that do not fit in here together have to be used as they land."""
        rows = zip(prompt.items, row_sizes(prompt), strict=True)
        total = sum(item.layout.num_rows * size for item, size in rows)
        whole = not self._config.overlap and self._rows.holds(total)
        return MultiModalEmbeddingData(prompt, whole=whole, least_part=self._config.overlap_tokens)

    def _on_rows(self, encoder: str, part: EmbeddingData, frame: memoryview | None) -> None:
        member, since = self._station.members.get(encoder), self._times.now()
        taken = RowsTaken(slot=part.payload.slot, item=part.item)
        unread = self._when_unread(part.payload, encoder, taken)
        if member is None or not self._rows.landed(encoder, part):
            unread()
            return
        try:
            rows = self._incoming.take(member, part.payload, frame, unread)
            lap = self._laps.begin()  # behind what the encoder's device is still at
            if part.payload.lent and not part.payload.kept:
                rows = rows.copied()  # others wait for the slot
            merged = self._merged[part.request]
            merged.add(part.item.index, part.first_row, rows.tensor, rows.check)
        except Unavailable as error:
            self._do(self._kv.failed(part.request, error))
        except EpdError as error:
            blamed = InternalError(f"{encoder} sent bad rows for item {part.item.index}: {error}")
            self._do(self._kv.failed(part.request, blamed))
        else:
            landed = partial(self._landed, part, merged.ready_tokens)
            if part.payload.device:
                self._laps.end(lap, landed)
            else:
                now = self._times.now()
                self._laps.then(partial(landed, now - since, now))
            self._do(self._rows.settled(part))

    def _landed(self, part: EmbeddingData, ready: int, seconds: float, ended: float) -> None:
        self._times.landed(part, seconds=seconds, ended=ended)
        self._times.ready(part.request, ready, ended)

    # ---- work

    @property
    def stuck(self) -> bool:
        """A peer's link takes no bulk now, or the GPU is not done with something."""
        return self._bulk.refused or self._incoming.waits

    def step(self, turn: Turn = Turn.ALONE) -> None:
        """Send what can be sent, then one forward."""
        self._bulk.pump()
        self._take_arrived()
        self._end_late()
        self._give_back()
        if self._engine.has_work:
            lap = self._laps.begin()
            self._complete(self._engine.step(hold=turn is Turn.HELD), lap)
            self._give_back()
            self._bulk.pump()

    def _complete(self, result: StepResult, lap: Lap) -> None:
        if result.computed:
            self._time(result.computed, lap)
        for key, num_tokens in result.computed:
            self._offer(key, num_tokens)
            if key in self._merged:
                done = self._admits[key].prompt.rows_before(num_tokens)
                self._do(self._rows.consumed(key, done))
        self._tell_prefilled(result)
        for key in result.ended:
            if key in self._admits and self._admits[key].decode is None:
                self._tell(self._times.ended(key))
        self._send_prompt_logprobs(result)
        self._send_tokens(result.tokens)
        for key, choices in self._going_on(result.tokens).items():
            self._do(self._kv.sampled(self._state(self._admits[key], choices)))
        for key in result.ended:
            self._do(self._kv.ended(key))
        for key, error in result.failed:
            self._do(self._kv.failed(key, error))
        self._admission.stepped()

    def _time(self, computed: list[tuple[RequestKey, int]], lap: Lap) -> None:
        """A step is told of when the device is through with it."""
        whole = [key for key, num in computed if num == self._admits[key].prompt.num_tokens]
        going_on = {key for key, _ in computed if key in self._merged}.difference(whole)
        ready = {key: self._merged[key].ready_tokens for key in going_on}
        self._laps.end(lap, partial(self._computed, computed, ready))
        self._last_laps |= dict.fromkeys(whole, lap)

    def _tell_prefilled(self, result: StepResult) -> None:
        """What a prompt took, before its first token goes, which has been read."""
        for key in dict.fromkeys([*(run.request for run in result.tokens), *result.ended]):
            lap = self._last_laps.pop(key, None)
            if lap is None:
                continue
            self._laps.finish(lap)
            rows = self._merged.get(key)
            self._tell(self._times.prefilled(key, None if rows is None else rows.merge_seconds))

    def _computed(
        self,
        computed: list[tuple[RequestKey, int]],
        ready: Mapping[RequestKey, int],
        seconds: float,
        ended: float,
    ) -> None:
        for key, num_tokens in computed:
            self._times.computed(key, num_tokens, seconds=seconds, ended=ended)
            if key in ready:
                self._times.ready(key, ready[key], ended)

    def _send_prompt_logprobs(self, result: StepResult) -> None:
        for key, first_token, logprobs in result.prompt_logprobs:
            gateway = self._kv.gateway_of(key)
            if gateway is not None:
                told = PromptLogprobs(request=key, first_token=first_token, logprobs=logprobs)
                self._station.send(gateway, told)

    def _going_on(self, runs: list[TokenRun]) -> dict[RequestKey, list[tuple[int, int]]]:
        """Requests that go on at decode: the choices that did not end with their first token."""
        found: dict[RequestKey, list[tuple[int, int]]] = defaultdict(list)
        for run in runs:
            admit = self._admits.get(run.request)
            leaves = admit is not None and admit.decode is not None
            if leaves and run.finish_reason is None:
                found[run.request].append((run.choice, run.token_ids[0]))
        return found

    def _state(self, admit: Admit, choices: list[tuple[int, int]]) -> HandOff:
        return HandOff(
            request=admit.request,
            token_ids=tuple(admit.prompt.token_ids()),
            choices=tuple(choices),
            position_delta=self._deltas[admit.request],
            sampling=admit.sampling,
            first_index=admit.first_index,
        )

    def _free(self, request: RequestKey) -> None:
        for held in (self._admits, self._deltas, self._merged, self._last_laps):
            held.pop(request, None)
        self._do(self._rows.ended(request))
        super()._free(request)

    def _chunks(self, send: SendKv) -> Iterator[Chunk]:
        model = self._model
        room, ranks = self._bulk.chunk_bytes(send.to), self._bulk.ranks(send.to)
        pair_bytes = 2 * model.kv_heads * model.head_dim * model.dtype.itemsize
        if room * ranks < pair_bytes:
            ranks = 1  # their arenas hold no token: all heads go as a frame
        budget = max(1, room * ranks // pair_bytes)
        tokens = min(send.num_tokens, budget)
        layers = min(model.num_layers, max(1, budget // tokens))
        end = send.first_token + send.num_tokens
        for first in range(send.first_token, end, tokens):
            for layer in range(0, model.num_layers, layers):
                part = (
                    first,
                    min(tokens, end - first),
                    layer,
                    min(layers, model.num_layers - layer),
                )
                read = self._engine.exchange.read if ranks == 1 else self._engine.exchange.read_part
                yield Chunk(
                    partial(read, send.request, *part),
                    partial(_chunk, send, *part),
                    None if ranks == 1 else partial(self._lend, send, *part),
                )

    def _lend(
        self,
        send: SendKv,
        first: int,
        num: int,
        layer: int,
        layers: int,
        payload: Payload,
    ) -> Task:
        at = lent_at(self._station.members[send.to], payload)
        return self._engine.exchange.lend_parts(send.request, first, num, layer, layers, at)

    def gauges(self) -> dict[str, int]:
        """What the worker holds."""
        return {
            **super().gauges(),
            "bulk_sends": self._bulk.num_sends,
            "row_bytes_held": self._rows.held_bytes,
            "credit_bytes": self._rows.quota_bytes,
            "rows_merged_bytes": sum(m.held_bytes for m in self._merged.values()),
            "shm_bytes": self._outgoing.in_use,
            "kv_bytes_sent": self._bulk.bytes_sent,
        }

    def close(self) -> None:
        """Free shared memory."""
        super().close()
        self._outgoing.close()


def row_sizes(prompt: Prompt) -> list[int]:
    """Bytes of one row of each item."""
    return [item.layout.width * getattr(torch, item.layout.dtype).itemsize for item in prompt.items]


def _chunk(
    send: SendKv, first: int, num: int, layer: int, layers: int, payload: Payload
) -> KvChunk:
    return KvChunk(
        request=send.request,
        first_token=first,
        num_tokens=num,
        first_layer=layer,
        num_layers=layers,
        payload=payload,
    )
