"""The encoder: from jobs to rows. Everything but `gauges` is called by the step thread alone.

One lock guards what is known about items. Intake threads take it to ask whether an item is still
wanted and to report that it failed; nobody holds it while fetching, decoding or encoding.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import torch

from epd.config import EncodeConfig, MediaConfig
from epd.encoder.batcher import Batch, Batcher, Queued
from epd.encoder.events import (
    ItemBroken,
    ItemEncoded,
    ItemPrepared,
    PreparedItem,
    Towers,
    named,
)
from epd.encoder.intake import Intake
from epd.encoder.prepared import PreparedItems
from epd.encoder.rows import RowStore
from epd.errors import BadRequest, EpdError, InternalError, Overloaded
from epd.types import ItemKey, ItemLayout
from epd.wire.messages import EncodeItem

log = logging.getLogger(__name__)


class Encoder:
    """Encodes items and keeps their rows until they are pulled, evicted or dropped.

    `settings` names everything about model and processor that shapes rows; it goes into content
    keys. `on_event` takes ItemPrepared and ItemBroken from any thread.
    """

    def __init__(
        self,
        towers: Towers,
        config: EncodeConfig,
        media: MediaConfig,
        settings: str,
        on_event: Callable[[object], None],
    ) -> None:
        self._towers = towers
        self._config = config
        self._on_event = on_event
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._closed = False
        self._tower_s = 0.0
        self._num_encoded = 0
        self._store: RowStore[torch.Tensor] = RowStore(config.rows_bytes)
        self._prepared: PreparedItems[PreparedItem] = PreparedItems(config.prepared_bytes)
        self._batcher: Batcher[PreparedItem] = Batcher(
            max_items=config.max_batch_items, max_patches=config.max_batch_patches
        )
        self._intake = Intake(
            towers,
            media,
            modalities=towers.modalities,
            settings=settings,
            num_threads=config.intake_threads,
            num_fetches=config.fetch_threads,
            wanted=self._expects,
            wait_for_room=self._wait_for_room,
            on_event=self._from_intake,
        )

    def submit(self, job: EncodeItem, data: bytes | None) -> None:
        """Start an item. One ItemPrepared or ItemBroken follows, unless it is dropped first.

        A repeat, and an item that was dropped, are ignored.
        """
        with self._lock:
            if not self._store.expect(job.item, pinned=job.wanted):
                return
            full = self._store.num_expected > self._config.max_queued_items
            if full:
                self._store.fail(job.item)
            elif job.hold:
                self._prepared.hold(job.item)
        if full:
            busy = Overloaded(f"{self._config.max_queued_items} items are queued for encoding")
            self._on_event(ItemBroken(job.item, named(busy, job.modality, job.item)))
        else:
            self._intake.submit(job, data)

    def prepared(self, event: ItemPrepared) -> bool:
        """Queue for the towers, or hold, what an intake thread prepared. False: it was dropped."""
        with self._lock:
            if not self._store.expects(event.item):
                return False
            ready = self._prepared.take(event.item, event.prepared)
        self._queue(ready)
        return True

    def run(self, item: ItemKey) -> None:
        """Somebody needs the item's rows: it is held no longer. Others are not touched."""
        with self._lock:
            ready = self._prepared.run(item)
        self._queue(ready)

    def _queue(self, ready: list[tuple[ItemKey, PreparedItem]]) -> None:
        for item, prepared in ready:
            self._batcher.add(item, prepared.patches, prepared)

    @property
    def has_work(self) -> bool:
        """Whether step() has something to do."""
        return len(self._batcher) > 0

    def step(self) -> list[ItemEncoded | ItemBroken]:
        """One tower forward at most; a batch that fails is tried again in parts by later steps.

        Raises torch.AcceleratorError: the device is unusable, and so is this process.
        """
        batch = self._batcher.take()
        if batch is None:
            return []
        rows: list[torch.Tensor] | None
        began = time.perf_counter()
        try:
            rows = self._encode(batch)
        except torch.AcceleratorError:
            raise
        except torch.OutOfMemoryError:
            rows = None  # handled below, when the exception no longer holds the tensors
        except Exception as error:  # noqa: BLE001  the barrier of these items, which get an answer
            return self._failed(batch, error)
        if rows is None:
            return self._out_of_memory(batch)
        self._tower_s += time.perf_counter() - began
        self._num_encoded += len(rows)
        with self._lock:
            for queued, tensor in zip(batch.items, rows, strict=True):
                self._store.put(queued.item, tensor, tensor.nbytes)
                self._end(queued.item)
        return [
            ItemEncoded(queued.item, len(tensor))
            for queued, tensor in zip(batch.items, rows, strict=True)
        ]

    def rows(self, item: ItemKey) -> torch.Tensor | None:
        """[num_rows, width] on the towers' device; None when not, or no longer, here."""
        with self._lock:
            return self._store.get(item)

    def pin(self, item: ItemKey) -> bool:
        """Somebody pulls this item: keep its rows, also if they come later. False: unknown."""
        with self._lock:
            return self._store.pin(item)

    def unpin(self, item: ItemKey) -> bool:
        """Nobody pulls it any more: its rows may be evicted."""
        with self._lock:
            return self._store.unpin(item)

    def drop(self, item: ItemKey) -> None:
        """The consumer is gone: forget the item wherever it is, and ignore it from now on."""
        with self._lock:
            self._store.drop(item)
            self._end(item)
        self._batcher.drop(item)

    def gauges(self) -> dict[str, int]:
        """What is held; any thread."""
        with self._lock:
            return {
                "rows_bytes": self._store.num_bytes,
                "pinned_items": self._store.num_pinned,
                "queued_items": self._store.num_expected,
                "held_items": self._prepared.num_held,
                "prepared_bytes": self._prepared.num_bytes,
                "intake_jobs": self._intake.num_jobs,
                "intake_ms": int(self._intake.busy_s * 1000),
                "tower_ms": int(self._tower_s * 1000),
                "encoded": self._num_encoded,
            }

    def close(self) -> None:
        """Stop the intake threads; no event comes after it."""
        with self._lock:
            self._closed = True
            self._room.notify_all()
        self._intake.close()

    def _end(self, item: ItemKey) -> None:
        """Under the lock: its pixels are free, or nobody wants them."""
        self._prepared.end(item)
        self._room.notify_all()

    # ---- intake threads

    def _wait_for_room(self, item: ItemKey) -> bool:
        """Until there is memory for one more prepared item. False: nobody wants this one now."""

        def settled() -> bool:
            return self._closed or not self._store.expects(item) or not self._prepared.full

        with self._room:
            self._room.wait_for(settled)
            return not self._closed and self._store.expects(item)

    def _expects(self, item: ItemKey) -> bool:
        with self._lock:
            return not self._closed and self._store.expects(item)

    def _from_intake(self, event: ItemPrepared | ItemBroken) -> None:
        if isinstance(event, ItemPrepared):
            event = self._within_capacity(event)
        with self._lock:
            if self._closed or not self._store.expects(event.item):
                return
            if isinstance(event, ItemBroken):
                self._store.fail(event.item)
                self._end(event.item)
            else:
                size = sum(tensor.nbytes for tensor in event.prepared.inputs.values())
                self._prepared.prepared(event.item, size)
        self._on_event(event)

    def _within_capacity(self, event: ItemPrepared) -> ItemPrepared | ItemBroken:
        """An item whose rows can never be kept is refused before its tower runs."""
        layout = event.prepared.layout
        nbytes = layout.num_rows * layout.width * getattr(torch, layout.dtype).itemsize
        if nbytes <= self._config.rows_bytes:
            return event
        error = BadRequest(
            f"its rows take {nbytes} bytes, and this worker keeps {self._config.rows_bytes}"
        )
        return ItemBroken(event.item, named(error, layout.modality, event.item))

    # ---- the towers

    def _encode(self, batch: Batch[PreparedItem]) -> list[torch.Tensor]:
        rows = self._towers.encode([queued.prepared for queued in batch.items])
        if len(rows) != len(batch.items):
            raise InternalError(f"towers gave {len(rows)} results for {len(batch.items)} items")
        return [
            _owned(tensor, queued.prepared.layout)
            for queued, tensor in zip(batch.items, rows, strict=True)
        ]

    def _out_of_memory(self, batch: Batch[PreparedItem]) -> list[ItemEncoded | ItemBroken]:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        patches = sum(queued.patches for queued in batch.items)
        log.warning("out of memory", extra={"items": len(batch.items), "patches": patches})
        if self._batcher.halve(batch):
            return []
        return self._break(batch.items, InternalError("out of device memory in encode"))

    def _failed(
        self, batch: Batch[PreparedItem], error: Exception
    ) -> list[ItemEncoded | ItemBroken]:
        if self._batcher.separate(batch):
            log.warning("batch failed, trying its items one by one", exc_info=error)
            return []
        if not isinstance(error, BadRequest):
            log.error("encode failed", extra={"item": batch.items[0].item}, exc_info=error)
        if not isinstance(error, EpdError):
            error = InternalError("internal error in encode")
        return self._break(batch.items, error)

    def _break(
        self, items: tuple[Queued[PreparedItem], ...], error: EpdError
    ) -> list[ItemEncoded | ItemBroken]:
        with self._lock:
            for queued in items:
                self._store.fail(queued.item)
                self._end(queued.item)
        return [
            ItemBroken(queued.item, named(error, queued.prepared.layout.modality, queued.item))
            for queued in items
        ]


def _owned(rows: torch.Tensor, layout: ItemLayout) -> torch.Tensor:
    """Rows as the layout promised them, in memory of their own.

    A view would keep the whole batch alive after its neighbours were evicted.
    """
    found = (tuple(rows.shape), str(rows.dtype).removeprefix("torch."))
    promised = ((layout.num_rows, layout.width), layout.dtype)
    if found != promised:
        raise InternalError(f"towers gave rows {found} where the layout promised {promised}")
    if rows.is_contiguous() and rows.untyped_storage().nbytes() == rows.nbytes:
        return rows
    return rows.clone(memory_format=torch.contiguous_format)
