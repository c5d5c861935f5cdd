"""The encoder: from jobs to rows. Everything but `gauges` is called by the step thread alone.

One lock guards what is known about items. Intake threads take it to ask whether an item is still
wanted and to report that it failed; nobody holds it while fetching, decoding or encoding. Where
nothing is to overlap, decoding and encoding take turns under a lock of their own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

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
from epd.encoder.ledger import Known, Ledger, Work
from epd.encoder.reading import Reader, Reading, whose
from epd.errors import BadRequest, EpdError, InternalError, Overloaded, TooLate
from epd.media.decoders import Decoders
from epd.models.laps import Laps
from epd.types import ItemKey, ItemLayout
from epd.wire.messages import EncodeItem

log = logging.getLogger(__name__)


def copied(rows: torch.Tensor) -> torch.Tensor:
    """Rows in memory of their own. A view would keep the whole batch after its neighbours went."""
    return rows.clone(memory_format=torch.contiguous_format)


class Encoder:
    """Encodes items and keeps their rows until they are pulled, evicted or dropped.

    `settings` names everything about model and processor that shapes rows; it goes into content
    keys. `on_event` takes ItemPrepared and ItemBroken from any thread. `keep` copies rows to where
    they are to stay, on the step thread. `laps` are of the towers' device.
    """

    def __init__(
        self,
        towers: Towers,
        config: EncodeConfig,
        media: MediaConfig,
        settings: str,
        on_event: Callable[[object], None],
        keep: Callable[[torch.Tensor], torch.Tensor] = copied,
        laps: Laps | None = None,
    ) -> None:
        self._towers = towers
        self._keep = keep
        self._config = config
        self._on_event = on_event
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._closed = False
        self._laps = Laps() if laps is None else laps
        self._timed: list[ItemKey] = []  # rows are there, and how long that took is known
        self._tower_s = 0.0
        self._num_encoded = 0
        self._ledger: Ledger[PreparedItem, torch.Tensor, Reading] = Ledger(
            rows_bytes=config.rows_bytes,
            cache_bytes=config.cache_bytes,
            prepared_bytes=config.prepared_bytes,
        )
        self._arrived: list[ItemEncoded] = []  # rows that were known before the item came
        self._batcher: Batcher[PreparedItem] = Batcher(
            max_items=config.max_batch_items,
            max_patches=config.batch_patches(towers.device.type),
            policy=config.policy,
        )
        self._decoders = Decoders(config.decoders, media)
        self._turn: AbstractContextManager[object] = (
            nullcontext() if config.overlap else threading.Lock()
        )
        reader = Reader(towers, self._decoders, media, settings)
        self.times = reader.times
        self._intake = Intake(
            reader,
            media,
            turn=self._turn,
            modalities=towers.modalities,
            num_threads=config.intake_threads,
            policy=config.policy,
            num_fetches=config.fetch_threads,
            fetch_bytes=config.fetch_bytes,
            wanted=self._expects,
            leads=self._leads,
            wait_for_room=self._wait_for_room,
            on_prepared=self._on_prepared,
            on_broken=self._on_broken,
        )

    def submit(self, job: EncodeItem, data: bytes | None) -> None:
        """Start an item. One ItemPrepared or ItemBroken follows, unless it is dropped first.

        A repeat, and an item that was dropped, are ignored.
        """
        with self._lock:
            work = Work(job.modality, job.cost)
            if not self._ledger.expect(job.item, work, pinned=job.wanted, hold=job.hold):
                return
            self._ledger.ends(job.item, job.deadline_ms, time.monotonic())
            busy = self._overload(data)
            if busy is not None:
                self._ledger.fail(job.item)
        self.times.came(job.item)
        if busy is not None:
            self._on_event(ItemBroken(job.item, named(busy, job.modality, job.item)))
        else:
            self._intake.submit(job, data)

    def _overload(self, data: bytes | None) -> Overloaded | None:
        most_items, most_bytes = self._config.max_queued_items, self._config.queued_bytes
        if self._ledger.store.num_expected > most_items:
            reason = f"{most_items} items are queued for encoding"
            return Overloaded(reason, retry_after_s=self._busy_for_s)
        queued = self._intake.num_bytes
        if data is not None and queued and queued + len(data) > most_bytes:
            reason = f"files of {queued} bytes are queued for encoding"
            return Overloaded(reason, retry_after_s=self._busy_for_s)
        return None

    @property
    def _busy_for_s(self) -> float | None:
        """What is queued takes so long, if it goes on as it did; under the lock."""
        done = self._ledger.work_done
        return self._work_s * self._ledger.queued_cost / done if done else None

    @property
    def _work_s(self) -> float:
        """What the work took so far: a thread's share of preparing, and the towers."""
        return self._intake.work_s / self._config.intake_threads + self._tower_s

    def prepared(self, event: ItemPrepared) -> bool:
        """Queue for the towers, or hold, what an intake thread prepared. False: it was dropped."""
        with self._lock:
            if not self._ledger.store.expects(event.item):
                return False
            given = self._ledger.early(event.item) or event.prepared
            if isinstance(given, Known):
                self._ledger.keep(event.item, given)
                self.times.known(event.item)
                self._arrived.append(ItemEncoded(event.item, given.layout.num_rows))
                return True
            ready = self._ledger.take_off(event.item, given)
        self._queue(ready)
        return True

    def run(self, item: ItemKey) -> None:
        """Somebody needs the item's rows: it is held no longer. Others are not touched."""
        with self._lock:
            ready = self._ledger.run(item)
        self._queue(ready)

    def _queue(self, ready: list[tuple[ItemKey, PreparedItem]]) -> None:
        for item, prepared in ready:
            self._batcher.add(item, prepared.patches, prepared)

    @property
    def num_requests(self) -> int:
        """Requests with items that are still to be encoded."""
        with self._lock:
            return self._ledger.num_requests

    @property
    def has_work(self) -> bool:
        """Whether step() has something to do."""
        return len(self._batcher) > 0 or len(self._arrived) > 0

    def step(self, *, alone: bool = True) -> list[ItemEncoded | ItemBroken]:
        """One tower forward at most; a batch that fails is tried again in parts by later steps.

        On a CPU where something else waits for it too, not `alone`, a forward has a single item.

        Raises torch.AcceleratorError: the device is unusable, and so is this process.
        """
        arrived, self._arrived = self._arrived, []
        self._timed += [known.item for known in arrived]
        batch = self._batcher.take(single=not alone and self._towers.device.type == "cpu")
        return [*arrived, *(self._forward(batch) if batch else ())]

    def _forward(self, batch: Batch[PreparedItem]) -> list[ItemEncoded | ItemBroken]:
        rows: list[torch.Tensor] | None
        try:
            with self._turn:
                lap = self._laps.begin()
                rows = self._encode(batch)
        except torch.AcceleratorError:
            raise
        except torch.OutOfMemoryError:
            rows = None  # handled below, when the exception no longer holds the tensors
        except Exception as error:  # noqa: BLE001  the barrier of these items, which get an answer
            return self._failed(batch, error)
        if rows is None:
            return self._out_of_memory(batch)
        self._num_encoded += len(rows)
        encoded: list[ItemEncoded | ItemBroken] = []
        gave: dict[ItemKey, list[ItemKey]] = {}
        with self._lock:
            for queued, tensor in zip(batch.items, rows, strict=True):
                known = Known(queued.prepared.layout, tensor, tensor.nbytes)
                landed = gave[queued.item] = list(self._ledger.land(queued.item, known))
                encoded += [ItemEncoded(item, len(tensor)) for item in landed]
            self._room.notify_all()
        self._laps.end(lap, partial(self._took, gave))
        return encoded

    def _took(self, landed: Mapping[ItemKey, list[ItemKey]], seconds: float, ended: float) -> None:
        """The towers are through with a batch: its leaders, and who got the rows of each."""
        self._tower_s += seconds
        for leader, items in landed.items():
            self.times.encoded(leader, items, seconds=seconds, ended=ended, batch_items=len(landed))
            self._timed += items

    def timed(self) -> list[ItemKey]:
        """Encoded items of which `times` has all there is to say, each once."""
        found, self._timed = self._timed, []
        return found

    def rows(self, item: ItemKey) -> torch.Tensor | None:
        """[num_rows, width] on the towers' device; None when not, or no longer, here."""
        with self._lock:
            return self._ledger.store.get(item)

    def pin(self, item: ItemKey) -> bool:
        """Somebody pulls this item: keep its rows, also if they come later. False: unknown."""
        with self._lock:
            return self._ledger.store.pin(item)

    def unpin(self, item: ItemKey) -> bool:
        """Nobody pulls it any more: its rows may be evicted."""
        with self._lock:
            return self._ledger.store.unpin(item)

    def drop(self, item: ItemKey) -> None:
        """The consumer is gone: forget the item wherever it is, and ignore it from now on."""
        with self._lock:
            leader = self._ledger.drop(item)
            self.times.end(item)
            self._room.notify_all()
        self._arrived = [encoded for encoded in self._arrived if encoded.item != item]
        if leader is not None:
            self._batcher.drop(leader)

    def expire(self, now: float) -> list[ItemBroken]:
        """Drop what nobody waits for any more, and say so."""
        with self._lock:
            late = self._ledger.expire(now)
        for item, _ in late:
            self.drop(item)
        error = TooLate("the request's deadline passed before it was encoded")
        return [ItemBroken(item, named(error, modality, item)) for item, modality in late]

    def gauges(self) -> dict[str, int]:
        """What is held; any thread."""
        with self._lock:
            return {
                **self._ledger.gauges(),
                "intake_jobs": self._intake.num_jobs,
                "intake_ms": int(self._intake.busy_s * 1000),
                "tower_ms": int(self._tower_s * 1000),
                "encoded": self._num_encoded,
                "work_cost": self._ledger.work_done,
                "work_ms": int(self._work_s * 1000),
            }

    def close(self) -> None:
        """Stop the intake threads and decoder processes; no event comes after it."""
        with self._lock:
            self._closed = True
            self._room.notify_all()
        self._decoders.close()
        self._intake.close()

    # ---- intake threads

    def _wait_for_room(self, item: ItemKey) -> bool:
        """Until there is memory for one more prepared item. False: nobody wants this one now."""
        with self._room:
            self._room.wait_for(lambda: not self._wants(item) or not self._ledger.full)
            return self._wants(item)

    def _expects(self, item: ItemKey) -> bool:
        with self._lock:
            return self._wants(item)

    def _wants(self, item: ItemKey) -> bool:
        """Under the lock."""
        return not self._closed and self._ledger.wants(item, time.monotonic())

    def _leads(self, reading: Reading, content_key: bytes) -> bool:
        """Whether this thread must prepare the item: it is not known, nor on its way already."""
        job = reading.job
        key = (content_key, job.text_before)
        with self._lock:
            if self._closed or not self._ledger.store.expects(job.item):
                return False
            known: PreparedItem | Known[torch.Tensor] | None = self._ledger.known(key)
            if known is None:
                if (twin := self._ledger.twin(key)) is not None:
                    reading = Reading(job, twin.data)  # equal bytes are kept once
                leads, known = self._ledger.join(job.item, key, reading)
                if leads:
                    return True
        if known is not None:
            self._on_event(ItemPrepared(job.item, known))
        return False

    def _on_prepared(self, leader: ItemKey, prepared: PreparedItem) -> None:
        """The layout is known to all who wait for it."""
        layout = prepared.layout
        nbytes = layout.num_rows * layout.width * getattr(torch, layout.dtype).itemsize
        if nbytes > self._config.rows_bytes:  # its rows could never be kept
            error = BadRequest(
                f"its rows take {nbytes} bytes, and this worker keeps {self._config.rows_bytes}"
            )
            self._on_broken(ItemBroken(leader, named(error, layout.modality, leader)))
            return
        size = sum(tensor.nbytes for tensor in prepared.inputs.values())
        with self._lock:
            waiting = () if self._closed else self._ledger.prepared(leader, prepared, size)
        for item in waiting:
            self._on_event(ItemPrepared(item, prepared))

    def _on_broken(self, event: ItemBroken) -> None:
        """An item got no layout; those who followed it try for themselves."""
        with self._lock:
            if self._closed:
                return
            wanted = self._ledger.store.expects(event.item)
            anew = self._ledger.unprepared(event.item)
            self._room.notify_all()
        if wanted:
            self._on_event(event)
        for reading in anew:
            self._intake.submit(reading.job, reading.data)

    # ---- the towers

    def _encode(self, batch: Batch[PreparedItem]) -> list[torch.Tensor]:
        rows = self._towers.encode([queued.prepared for queued in batch.items])
        if len(rows) != len(batch.items):
            raise InternalError(f"towers gave {len(rows)} results for {len(batch.items)} items")
        return [
            self._keep(_checked(tensor, queued.prepared.layout))
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
            log.error("encode failed", extra=whose(batch.items[0].item), exc_info=error)
        if not isinstance(error, EpdError):
            error = InternalError("internal error in encode")
        return self._break(batch.items, error)

    def _break(
        self, items: tuple[Queued[PreparedItem], ...], error: EpdError
    ) -> list[ItemEncoded | ItemBroken]:
        broken: list[ItemEncoded | ItemBroken] = []
        with self._lock:
            for queued in items:
                modality = queued.prepared.layout.modality
                for item in self._ledger.crash(queued.item):
                    broken.append(ItemBroken(item, named(error, modality, item)))
            self._room.notify_all()
        return broken


def _checked(rows: torch.Tensor, layout: ItemLayout) -> torch.Tensor:
    """Rows as the layout promised them."""
    found = (tuple(rows.shape), str(rows.dtype).removeprefix("torch."))
    promised = ((layout.num_rows, layout.width), layout.dtype)
    if found != promised:
        raise InternalError(f"towers gave rows {found} where the layout promised {promised}")
    return rows
