"""Intake: threads that turn a job into a prepared item, or into the reason why not.

Items behind URLs have threads of their own, most of which wait for a server: slow servers hold up
neither inline items nor each other. How many items are decoded and preprocessed at once is limited
over all threads. Threads are daemons, so a fetch does not hold up the end of the process.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from epd.config import MediaConfig
from epd.encoder.events import ItemBroken, ItemPrepared, PreparedItem, Towers, named
from epd.errors import BadRequest, Cancelled, EpdError, InternalError
from epd.media import Fetcher, content_key
from epd.media.image import ImageIO
from epd.models.adapter import Asked
from epd.types import ItemKey, Modality
from epd.wire.messages import EncodeItem

log = logging.getLogger(__name__)

_Jobs = queue.SimpleQueue[tuple[EncodeItem, bytes | None] | None]
_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Pool:
    """Threads that share a queue of jobs."""

    jobs: _Jobs
    threads: list[threading.Thread]


class Intake:
    """Fetch, decode, preprocess. `wanted` is asked between these, to stop early when it is not.

    `wait_for_room` returns when one more item may be prepared; False as `wanted` says it.
    """

    def __init__(
        self,
        towers: Towers,
        media: MediaConfig,
        *,
        modalities: tuple[Modality, ...],
        settings: str,
        num_threads: int,
        num_fetches: int,
        wanted: Callable[[ItemKey], bool],
        wait_for_room: Callable[[ItemKey], bool],
        on_event: Callable[[ItemPrepared | ItemBroken], None],
    ) -> None:
        self._towers = towers
        self._modalities = modalities
        self._settings = settings
        self._wanted = wanted
        self._wait_for_room = wait_for_room
        self._on_event = on_event
        self._fetcher = Fetcher(media)
        self._pictures = ImageIO(media)
        self._working = threading.BoundedSemaphore(num_threads)
        self._lock = threading.Lock()
        self._num_jobs = 0
        self._busy_s = 0.0
        self._inline = self._start("intake", num_threads)
        self._fetched = self._start("fetch", num_fetches)

    def _start(self, name: str, count: int) -> _Pool:
        jobs: _Jobs = queue.SimpleQueue()
        threads = [
            threading.Thread(target=self._run, args=(jobs,), name=f"{name}-{n}", daemon=True)
            for n in range(count)
        ]
        for thread in threads:
            thread.start()
        return _Pool(jobs, threads)

    def submit(self, job: EncodeItem, data: bytes | None) -> None:
        """Queue a job; its one event comes from an intake thread, or none if it is dropped."""
        with self._lock:
            self._num_jobs += 1
        pool = self._inline if job.url is None else self._fetched
        pool.jobs.put((job, data))

    @property
    def num_jobs(self) -> int:
        """Jobs queued or in hand, those included that nobody wants any more."""
        return self._num_jobs

    @property
    def busy_s(self) -> float:
        """What jobs took so far, from their start to their event, in all threads together."""
        return self._busy_s

    def close(self) -> None:
        """Stop the threads; one that is inside a fetch is left behind after a second."""
        pools = (self._inline, self._fetched)
        for pool in pools:
            for _ in pool.threads:
                pool.jobs.put(None)
        deadline = time.monotonic() + _CLOSE_S
        for thread in [thread for pool in pools for thread in pool.threads]:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, jobs: _Jobs) -> None:
        while (job := jobs.get()) is not None:
            began = time.perf_counter()
            self._handle(*job)
            with self._lock:
                self._num_jobs -= 1
                self._busy_s += time.perf_counter() - began

    def _handle(self, job: EncodeItem, data: bytes | None) -> None:
        """One job's barrier: whatever happens, the item gets its answer."""
        try:
            prepared = self._prepare(job, data)
        except Cancelled:
            return
        except EpdError as error:
            self._on_event(ItemBroken(job.item, named(error, job.modality, job.item)))
        else:
            if prepared is not None:
                self._on_event(ItemPrepared(job.item, prepared))

    def _prepare(self, job: EncodeItem, data: bytes | None) -> PreparedItem | None:
        """None: nobody wants the item any more."""
        if job.modality not in self._modalities:
            raise BadRequest(f"this model does not take {job.modality.value} items here")
        if not self._wanted(job.item):
            return None
        with _fault_of(job, "fetch"):
            data = self._bytes(job, data)
        with self._working:
            return self._work(job, data)

    def _work(self, job: EncodeItem, data: bytes) -> PreparedItem | None:
        if not self._wait_for_room(job.item):
            return None
        with _fault_of(job, "decode"):
            media = self._pictures.load_bytes(data)
        if not self._wanted(job.item):
            return None
        key = content_key(
            data, self._settings, job.salt, job.modality.value, self._pictures.decoding
        )
        asked = Asked(
            modality=job.modality,
            content_key=key,
            text_before=job.text_before,
            dtype=self._towers.dtype_name,
            options=job.options,
        )
        with _fault_of(job, "preprocess"):
            return self._towers.prepare(media, asked)

    def _bytes(self, job: EncodeItem, data: bytes | None) -> bytes:
        if job.url is not None:
            return self._fetcher.fetch(job.url, job.modality, wanted=lambda: self._wanted(job.item))
        if data is None:
            raise InternalError("the job carried neither bytes nor a URL")
        return data


@contextmanager
def _fault_of(job: EncodeItem, stage: str) -> Iterator[None]:
    """What is nobody's fault but ours says where it happened, and the log has the traceback."""
    try:
        yield
    except EpdError:
        raise
    except Exception as error:
        log.exception("intake failed", extra={"item": job.item, "stage": stage})
        raise InternalError(f"internal error in {stage}") from error
