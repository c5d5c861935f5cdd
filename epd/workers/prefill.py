"""The prefill stage, fused with decode or not: prompts and rows in, first tokens and KV out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from epd.engine import Engine, EngineRequest, MultiModalEmbeddingData, Role, StepResult
from epd.errors import EpdError, InternalError
from epd.handoff import DropSends, Free, Instruction, KvSender, RowReceiver, Send, SendKv
from epd.models.language import LanguageModel
from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing
from epd.types import Prompt, RequestKey, TokenRun
from epd.wire.links import Delivery
from epd.wire.messages import (
    Admit,
    Admitted,
    Cancel,
    EmbeddingData,
    HandedOver,
    HandOff,
    ItemMoved,
    KvChunk,
    KvTaken,
    Payload,
    PeerFailed,
    PullKv,
    RowsLost,
    RowsTaken,
)
from epd.workers.bulk import BulkSender, Chunk
from epd.workers.language import Admission, send_failure, send_tokens
from epd.workers.station import Handler, Station


class PrefillCore:
    """Assembles the engine, both hand-offs and the links. Step thread only."""

    def __init__(
        self,
        station: Station,
        model: LanguageModel,
        engine: Engine,
        rows: RowReceiver,
        outgoing: Outgoing,
        chunk_bytes: int,
    ) -> None:
        self._station = station
        self._model = model
        self._engine = engine
        self._rows = rows
        self._outgoing = outgoing
        self._chunk_bytes = chunk_bytes
        self._kv = KvSender()
        self._incoming = Incoming()
        self._bulk = BulkSender(station.links, outgoing, station.same_host)
        self._admission = Admission(engine, station.links)
        self._admits: dict[RequestKey, Admit] = {}
        self._merged: dict[RequestKey, MultiModalEmbeddingData] = {}
        self._handlers: dict[type[Any], Handler] = {
            Admit: lambda peer, m, _: self._on_admit(peer, m),
            EmbeddingData: self._on_rows,
            RowsLost: lambda peer, m, _: self._do(self._rows.lost(peer, m)),
            ItemMoved: lambda peer, m, _: self._do(self._rows.moved(m)),
            PullKv: lambda peer, m, _: self._do(self._kv.pull(peer, m)),
            KvTaken: lambda peer, m, _: self._outgoing.give_back(m.slot, by=peer),
            HandedOver: lambda peer, m, _: self._do(self._kv.landed(peer, m.request)),
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
        """An encode or decode worker died."""
        self._bulk.peer_lost(name)
        self._incoming.forget(name)
        self._do([*self._kv.peer_lost(name), *self._rows.peer_lost(name)])

    def gateway_lost(self, name: str) -> None:
        """Its leases end."""
        self._admission.gateway_lost(name)
        self._do(self._kv.gateway_lost(name))

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
            send_failure(self._station.links, gateway, key, error)
            return
        self._kv.admitted(gateway, key, admit.decode)
        self._admits[key] = admit
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
    def has_work(self) -> bool:
        """A forward is due."""
        return self._engine.has_work

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
        send_tokens(self._station.links, result.tokens, self._kv.gateway_of)
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
        _, delta = self._model.positions(admit.prompt)
        return HandOff(
            request=admit.request,
            token_ids=(*admit.prompt.token_ids(), *run.token_ids),
            num_prompt_tokens=admit.prompt.num_tokens,
            position_delta=delta,
            sampling=admit.sampling,
            first_index=run.first_index,
        )

    def _do(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self._station.send(to, message)
                case SendKv():
                    self._bulk.add(instruction.to, instruction.request, self._chunks(instruction))
                case DropSends(key):
                    self._bulk.drop(key)
                case Free(request):
                    self._free(request)
                case _:
                    raise AssertionError(instruction)

    def _free(self, request: RequestKey) -> None:
        self._engine.release(request)
        self._admits.pop(request, None)
        self._merged.pop(request, None)
        self._do(self._rows.ended(request))
        self._admission.given_back()

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
            "kv_blocks_used": self._engine.used_blocks,
            "requests": self._kv.num_requests,
            "bulk_sends": self._bulk.num_sends,
            "row_bytes_held": self._rows.held_bytes,
            "rows_merged_bytes": sum(m.held_bytes for m in self._merged.values()),
            "shm_bytes": self._outgoing.in_use,
        }

    def close(self) -> None:
        """Free shared memory."""
        self._incoming.close()
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
