"""The prefill stage, fused with decode or not: prompts and rows in, first tokens and KV out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from epd.engine import Engine, EngineRequest, MultiModalEmbeddingData, Role, StepResult
from epd.errors import EpdError, InternalError
from epd.handoff import DropSends, KvSender, RowReceiver, SendKv, failure
from epd.models.language import LanguageModel
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
    PullKv,
    RowsLost,
    RowsTaken,
)
from epd.workers.bulk import BulkSender, Chunk
from epd.workers.language import LanguageCore
from epd.workers.station import Station


class PrefillCore(LanguageCore):
    """Assembles the engine, both hand-offs and the links."""

    def __init__(
        self,
        station: Station,
        model: LanguageModel,
        engine: Engine,
        rows: RowReceiver,
        outgoing: Outgoing,
        chunk_bytes: int,
    ) -> None:
        self._kv = KvSender()
        super().__init__(station, engine, self._kv)
        self._model = model
        self._rows = rows
        self._outgoing = outgoing
        self._chunk_bytes = chunk_bytes
        self._bulk = BulkSender(station.links, outgoing, station.same_host)
        self._admits: dict[RequestKey, Admit] = {}
        self._deltas: dict[RequestKey, int] = {}
        self._merged: dict[RequestKey, MultiModalEmbeddingData] = {}
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
        super().peer_lost(name)
        self._do(self._rows.peer_lost(name))

    def _on_admit(self, gateway: str, admit: Admit) -> None:
        key = admit.request
        if self._kv.refuses(key):
            return
        if not self._admission.reserve(gateway, key, admit.num_tokens):
            return
        try:
            request = self._engine_request(admit)
            self._engine.start(request)
        except EpdError as error:
            self._engine.release(key)
            self._station.send(gateway, failure(key, error))
            return
        self._kv.admitted(gateway, key, admit.decode)
        self._admits[key] = admit
        self._deltas[key] = request.position_delta
        self._station.send(gateway, Admitted(request=key))
        if request.embeddings is not None:
            self._merged[key] = request.embeddings
            sizes = [row_bytes(admit.prompt, k) for k in range(len(admit.prompt.items))]
            self._do(self._rows.admitted(gateway, key, admit.prompt, sizes))

    def _engine_request(self, admit: Admit) -> EngineRequest:
        positions, delta = self._model.positions(admit.prompt)
        return EngineRequest(
            key=admit.request,
            token_ids=admit.prompt.token_ids(),
            positions=positions,
            position_delta=delta,
            sampling=admit.sampling,
            first_index=admit.first_index,
            embeddings=MultiModalEmbeddingData(admit.prompt) if admit.prompt.items else None,
            role=Role.FULL if admit.decode is None else Role.PREFILL,
        )

    def _on_rows(self, encoder: str, part: EmbeddingData, frame: memoryview | None) -> None:
        member = self._station.members.get(encoder)
        try:
            if member is None or not self._rows.landed(encoder, part):
                return
            rows = self._incoming.take(member, part.payload, frame)
            self._merged[part.request].add(part.item.index, part.first_row, rows)
        except EpdError as error:
            blamed = InternalError(f"{encoder} sent bad rows for item {part.item.index}: {error}")
            self._do(self._kv.failed(part.request, blamed))
        else:
            self._do(self._rows.settled(part))
        finally:
            if part.payload.slot >= 0:
                self._station.send(encoder, RowsTaken(slot=part.payload.slot, item=part.item))

    # ---- work

    @property
    def stuck(self) -> bool:
        """Bulk waits for a peer or for room in the arena."""
        return self._bulk.waiting

    def step(self) -> None:
        """Send what can be sent, then one forward."""
        self._bulk.pump()
        if self._engine.has_work:
            self._complete(self._engine.step())
            self._bulk.pump()

    def _complete(self, result: StepResult) -> None:
        for key, num_tokens in result.computed:
            self._do(self._kv.computed(key, num_tokens))
            if key in self._merged:
                done = self._admits[key].prompt.rows_before(num_tokens)
                self._do(self._rows.consumed(key, done))
        self._send_tokens(result.tokens)
        for run in result.tokens:
            self._after(run)
        for key, error in result.failed:
            self._do(self._kv.failed(key, error))

    def _after(self, run: TokenRun) -> None:
        admit = self._admits.get(run.request)
        if admit is None:
            return
        if run.finish_reason is not None:
            self._do(self._kv.ended(run.request))
        elif admit.decode is not None:
            self._do(self._kv.sampled(self._state(admit, run)))

    def _state(self, admit: Admit, run: TokenRun) -> HandOff:
        return HandOff(
            request=admit.request,
            token_ids=tuple(admit.prompt.token_ids()),
            choices=((run.choice, run.token_ids[0]),),
            position_delta=self._deltas[admit.request],
            sampling=admit.sampling,
            first_index=run.first_index,
        )

    def _free(self, request: RequestKey) -> None:
        for held in (self._admits, self._deltas, self._merged):
            held.pop(request, None)
        self._do(self._rows.ended(request))
        super()._free(request)

    def _chunks(self, send: SendKv) -> Iterator[Chunk]:
        model = self._model
        pair_bytes = 2 * model.kv_heads * model.head_dim * model.dtype.itemsize
        budget = max(1, self._chunk_bytes // pair_bytes)
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
                yield Chunk(partial(self._read, send.request, *part), partial(_chunk, send, *part))

    def _read(
        self, request: RequestKey, first: int, num: int, layer: int, layers: int
    ) -> torch.Tensor:
        return self._engine.read_kv(request, first, num, layer, layers)

    def gauges(self) -> dict[str, int]:
        """What the worker holds."""
        return {
            **super().gauges(),
            "bulk_sends": self._bulk.num_sends,
            "row_bytes_held": self._rows.held_bytes,
            "rows_merged_bytes": sum(m.held_bytes for m in self._merged.values()),
            "shm_bytes": self._outgoing.in_use,
        }

    def close(self) -> None:
        """Free shared memory."""
        super().close()
        self._outgoing.close()


def row_bytes(prompt: Prompt, index: int) -> int:
    """Bytes of one row of the index-th item."""
    layout = prompt.items[index].layout
    dtype = getattr(torch, layout.dtype)
    assert isinstance(dtype, torch.dtype)
    return layout.width * dtype.itemsize


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
