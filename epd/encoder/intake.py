"""Intake: threads that turn a job into a prepared item, or into the reason why not.

A fetch that hangs holds one thread, never the step thread; threads are daemons, so it does not hold
up the end of the process either.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from PIL import Image

from epd.config import MediaConfig
from epd.encoder.events import ItemBroken, ItemPrepared, PreparedItem, Towers, named
from epd.errors import BadRequest, ConfigError, EpdError, InternalError
from epd.media import IMAGE_DECODING, Fetcher, content_key, load_image
from epd.types import ItemKey, Modality
from epd.wire.messages import EncodeItem

log = logging.getLogger(__name__)

Loader = Callable[[bytes, MediaConfig], Image.Image]
_LOADERS: dict[Modality, tuple[Loader, str]] = {Modality.IMAGE: (load_image, IMAGE_DECODING)}
_CLOSE_S = 1.0


class Intake:
    """Fetch, decode, preprocess. `wanted` is asked between these, to stop early when it is not."""

    def __init__(
        self,
        towers: Towers,
        media: MediaConfig,
        *,
        modalities: tuple[Modality, ...],
        settings: str,
        num_threads: int,
        wanted: Callable[[ItemKey], bool],
        on_event: Callable[[ItemPrepared | ItemBroken], None],
    ) -> None:
        if missing := [modality for modality in modalities if modality not in _LOADERS]:
            raise ConfigError(f"encode.modalities: no decoder for {', '.join(missing)}")
        self._towers = towers
        self._media = media
        self._modalities = modalities
        self._settings = settings
        self._wanted = wanted
        self._on_event = on_event
        self._fetcher = Fetcher(media)
        self._jobs: queue.SimpleQueue[tuple[EncodeItem, bytes | None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"intake-{n}", daemon=True)
            for n in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: EncodeItem, data: bytes | None) -> None:
        """Queue a job; its one event comes from an intake thread, or none if it is dropped."""
        self._jobs.put((job, data))

    def close(self) -> None:
        """Stop the threads; one that is inside a fetch is left behind after a second."""
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._handle(*job)

    def _handle(self, job: EncodeItem, data: bytes | None) -> None:
        """One job's barrier: whatever happens, the item gets its answer."""
        try:
            prepared = self._prepare(job, data)
        except EpdError as error:
            self._on_event(ItemBroken(job.item, named(error, job.modality, job.item)))
        else:
            if prepared is not None:
                self._on_event(ItemPrepared(job.item, prepared))

    def _prepare(self, job: EncodeItem, data: bytes | None) -> PreparedItem | None:
        """None: nobody wants the item any more."""
        if job.modality not in self._modalities:
            raise BadRequest(f"this model does not take {job.modality.value} items here")
        load, decoding = _LOADERS[job.modality]
        stage = "fetch"
        try:
            if not self._wanted(job.item):
                return None
            data = self._bytes(job, data)
            stage = "decode"
            if not self._wanted(job.item):
                return None
            media = load(data, self._media)
            stage = "preprocess"
            if not self._wanted(job.item):
                return None
            return self._towers.prepare(
                job.modality,
                media,
                content_key=content_key(data, self._settings, job.modality.value, decoding),
                text_before=job.text_before,
            )
        except EpdError:
            raise
        except Exception as error:
            log.exception("intake failed", extra={"item": job.item, "stage": stage})
            raise InternalError(f"internal error in {stage}") from error

    def _bytes(self, job: EncodeItem, data: bytes | None) -> bytes:
        if job.url is not None:
            return self._fetcher.fetch(job.url)
        if data is None:
            raise InternalError("the job carried neither bytes nor a URL")
        return data
