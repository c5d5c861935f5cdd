"""The encode stage: jobs in, layouts and rows out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from epd.encoder import Encoder, ItemBroken, ItemEncoded, ItemPrepared
from epd.handoff import DropSends, Instruction, Pin, RowSender, Send, SendRows, Unpin
from epd.transfer.outgoing import Outgoing
from epd.types import ItemKey
from epd.wire.links import Delivery
from epd.wire.messages import (
    DropItem,
    EmbeddingData,
    EncodeItem,
    Holding,
    ItemDone,
    ItemFailed,
    ItemSpans,
    LayoutReady,
    Payload,
    PullRows,
    ReleaseRows,
    RowsTaken,
    RunTower,
)
from epd.workers.bulk import BulkSender, Chunk
from epd.workers.station import Handler, Station
from epd.workers.timing import log_spans
from epd.workers.turns import Claims, Turn

log = logging.getLogger(__name__)


class EncodeCore:
    """Assembles the encoder, the row hand-off and the links. Step thread only."""

    def __init__(
        self, station: Station, encoder: Encoder, outgoing: Outgoing, chunk_bytes: int
    ) -> None:
        self._station = station
        self._encoder = encoder
        self._outgoing = outgoing
        self._sender = RowSender()
        self._owners: dict[ItemKey, str] = {}
        self._bulk = BulkSender(station.links, outgoing, station.route, chunk_bytes)
        self._handlers: dict[type[Any], Handler] = {
            EncodeItem: self._on_job,
            DropItem: self._on_drop,
            RunTower: lambda peer, m, _: self._encoder.run(m.item),
            PullRows: lambda peer, m, _: self._on_pull(peer, m),
            ReleaseRows: lambda peer, m, _: self._do(self._sender.release(peer, m)),
            RowsTaken: lambda peer, m, _: self._outgoing.give_back(m.slot, by=peer),
        }

    # ---- events

    def receive(self, delivery: Delivery) -> None:
        """A message of this stage."""
        self._station.dispatch(self._handlers, delivery)

    def local(self, event: object) -> None:
        """An item came out of the intake."""
        if isinstance(event, ItemPrepared):
            owner = self._owners.get(event.item)
            if owner is not None and self._encoder.prepared(event):
                layout = LayoutReady(item=event.item, layout=event.prepared.layout)
                self._tell(owner, self._encoder.times.so_far(event.item))
                self._station.send(owner, layout)
        elif isinstance(event, ItemBroken):
            self._on_broken(event)

    def peer_lost(self, name: str) -> None:
        """A prefill worker died."""
        self._bulk.peer_lost(name)
        self._do(self._sender.peer_lost(name))

    def gateway_lost(self, name: str) -> None:
        """Its items have no consumer any more."""
        for item in self._sender.held_for(name):
            self._drop(item)

    def holding(self, gateway: str) -> Holding:
        """The items of one gateway."""
        return Holding(requests=(), items=self._sender.held_for(gateway))

    def _on_job(self, peer: str, job: EncodeItem, frame: memoryview | None) -> None:
        if self._sender.expect(peer, job.item):
            self._owners[job.item] = peer
            self._encoder.submit(job, None if frame is None else bytes(frame))

    def _on_pull(self, peer: str, pull: PullRows) -> None:
        self._encoder.run(pull.item)
        self._do(self._sender.pull(peer, pull))

    def _on_drop(self, peer: str, message: DropItem, frame: memoryview | None) -> None:
        self._drop(message.item)

    def _drop(self, item: ItemKey) -> None:
        self._owners.pop(item, None)
        self._do(self._sender.drop(item))
        self._encoder.drop(item)

    def _on_broken(self, event: ItemBroken) -> None:
        what = {"request": event.item.request_id, "item": event.item.index}
        log.info("item failed: %s", event.error.message, extra=what)
        owner = self._owners.pop(event.item, None)
        self._do(self._sender.gone(event.item, event.error.message))
        if owner is not None:
            failed = ItemFailed(
                item=event.item,
                status=event.error.status,
                code=event.error.code,
                reason=event.error.message,
                retry_after_ms=int(1000 * (event.error.retry_after_s or 0)),
            )
            self._station.send(owner, failed)

    # ---- work

    @property
    def claims(self) -> Claims:
        """Of those with items that are not encoded."""
        if not self._encoder.has_work:
            return Claims()
        return Claims(arriving=max(1, self._encoder.num_requests))

    @property
    def stuck(self) -> bool:
        """A peer's link takes no bulk now."""
        return self._bulk.refused

    def step(self, turn: Turn = Turn.ALONE) -> None:
        """Send what can be sent, then one tower batch."""
        self._bulk.pump()
        for late in self._encoder.expire(time.monotonic()):
            self._on_broken(late)
        results = self._encoder.step(alone=turn is Turn.ALONE) if self._encoder.has_work else []
        for item in self._encoder.timed():
            self._tell(self._owners.get(item), self._encoder.times.end(item))
        for result in results:
            if isinstance(result, ItemEncoded):
                self._on_encoded(result.item)
            else:
                self._on_broken(result)
        self._bulk.pump()

    def _tell(self, owner: str | None, spans: ItemSpans | None) -> None:
        if owner is not None and spans is not None:
            log_spans(spans)
            self._station.send(owner, spans)

    def _on_encoded(self, item: ItemKey) -> None:
        owner = self._owners.get(item)
        rows = self._encoder.rows(item)
        if rows is None:
            self._evicted(item)
        else:
            self._do(self._sender.encoded(item, rows.shape[0]))
        if owner is not None:
            self._station.send(owner, ItemDone(item=item))

    def _do(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self._station.send(to, message)
                case SendRows():
                    self._send_rows(instruction)
                case DropSends(key):
                    self._bulk.drop(key)
                case Pin(item):
                    self._encoder.pin(item)
                case Unpin(item):
                    self._encoder.unpin(item)
                case _:
                    raise AssertionError(instruction)

    def _evicted(self, item: ItemKey) -> None:
        self._owners.pop(item, None)
        self._do(self._sender.gone(item, "evicted"))

    def _send_rows(self, send: SendRows) -> None:
        rows = self._encoder.rows(send.item)
        if rows is None:
            pull = PullRows(
                request=send.request,
                item=send.item,
                first_row=send.first_row,
                num_rows=send.num_rows,
            )
            self._evicted(send.item)
            self._do(self._sender.pull(send.to, pull))
            return
        self._bulk.add(send.to, send.item, self._chunks(send, rows))

    def _chunks(self, send: SendRows, rows: torch.Tensor) -> Iterator[Chunk]:
        row_bytes = rows.shape[1] * rows.element_size()
        step = max(1, self._bulk.chunk_bytes(send.to, rows) // row_bytes)
        end = send.first_row + send.num_rows
        for first in range(send.first_row, end, step):
            num = min(step, end - first)
            message = partial(_part, send, first, num)
            yield Chunk(partial(rows.narrow, 0, first, num), message)

    def gauges(self) -> dict[str, int]:
        """What the worker holds."""
        return {
            **self._encoder.gauges(),
            "items": self._sender.num_items,
            "bulk_sends": self._bulk.num_sends,
            "shm_bytes": self._outgoing.in_use,
            "kept_shared_bytes": self._outgoing.kept_bytes,
            "row_bytes_sent": self._bulk.bytes_sent,
        }

    def close(self) -> None:
        """Free threads and shared memory."""
        self._encoder.close()
        self._outgoing.close()


def _part(send: SendRows, first: int, num: int, payload: Payload) -> EmbeddingData:
    return EmbeddingData(
        request=send.request, item=send.item, first_row=first, num_rows=num, payload=payload
    )
