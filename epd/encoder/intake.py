"""Intake: threads that turn a job into a prepared item, or into the reason why not.

Items behind URLs have threads of their own, most of which wait for a server: slow servers hold up
neither inline items nor each other. How many items are decoded and preprocessed at once is limited
over all threads; which go first, their cost and a policy decide. Threads are daemons, so a fetch
does not hold up the end of the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from epd.config import MediaConfig
from epd.encoder.events import ItemBroken, PreparedItem, named
from epd.encoder.fetched import FetchedBytes, FetchRoom
from epd.encoder.reading import Reader, Reading
from epd.encoder.turns import Jobs, Turns
from epd.encoder.waiting import Policy
from epd.errors import BadRequest, Cancelled, EpdError, InternalError
from epd.media import Fetcher
from epd.types import Activity, ItemKey, Modality
from epd.wire.messages import EncodeItem

_Job = tuple[EncodeItem, bytes | None]
_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Pool:
    """Threads that share a queue of jobs."""

    jobs: Jobs[_Job]
    threads: list[threading.Thread]


class Intake:
    """Fetch, decode, preprocess. `wanted` is asked between these, to stop early when it is not.

    `leads` hears an item's content key as soon as its bytes are here; False: others see to it, or
    nobody wants it. `wait_for_room` returns when one more item may be prepared; False as `wanted`
    says it. `turn` is held while an item is decoded and preprocessed.
    """

    def __init__(
        self,
        reader: Reader,
        media: MediaConfig,
        *,
        modalities: tuple[Modality, ...],
        turn: AbstractContextManager[object],
        num_threads: int,
        policy: Policy,
        num_fetches: int,
        fetch_bytes: int,
        wanted: Callable[[ItemKey], bool],
        leads: Callable[[Reading, bytes], bool],
        wait_for_room: Callable[[ItemKey], bool],
        on_prepared: Callable[[ItemKey, PreparedItem], None],
        on_broken: Callable[[ItemBroken], None],
    ) -> None:
        self._reader = reader
        self._modalities = modalities
        self._wanted = wanted
        self._leads = leads
        self._wait_for_room = wait_for_room
        self._on_prepared = on_prepared
        self._on_broken = on_broken
        self._fetcher = Fetcher(media)
        self._media = media
        self._fetched_bytes = FetchedBytes(media.request_bytes)
        self._fetch_room = FetchRoom(fetch_bytes)
        self._turn = turn
        self._working = Turns(num_threads, policy)
        self._policy: Policy = policy
        self._lock = threading.Lock()
        self._num_jobs = 0
        self._num_bytes = 0
        self._busy_s = 0.0
        self._work_s = 0.0
        self._inline = self._start("intake", num_threads)
        self._fetched = self._start("fetch", num_fetches)

    def _start(self, name: str, count: int) -> _Pool:
        jobs: Jobs[_Job] = Jobs(self._policy)
        threads = [
            threading.Thread(target=self._run, args=(jobs,), name=f"{name}-{n}", daemon=True)
            for n in range(count)
        ]
        for thread in threads:
            thread.start()
        return _Pool(jobs, threads)

    def submit(self, job: EncodeItem, data: bytes | None) -> None:
        """Queue a job; its one event comes from an intake thread, or none if it is dropped.

        A job with bytes is never fetched, wherever they came from.
        """
        with self._lock:
            self._num_jobs += 1
            self._num_bytes += len(data or b"")
        pool = self._inline if job.url is None or data is not None else self._fetched
        pool.jobs.put((job, data), job.cost)

    @property
    def num_jobs(self) -> int:
        """Jobs queued or in hand, those included that nobody wants any more."""
        return self._num_jobs

    @property
    def num_bytes(self) -> int:
        """Of files that came with their jobs, until these are done."""
        return self._num_bytes

    @property
    def work_s(self) -> float:
        """What decoding and preprocessing took so far, in all threads together."""
        return self._work_s

    @property
    def busy_s(self) -> float:
        """What jobs took so far, from their start to their event, in all threads together."""
        return self._busy_s

    def close(self) -> None:
        """Stop the threads; one that is inside a fetch is left behind after a second."""
        pools = (self._inline, self._fetched)
        for pool in pools:
            pool.jobs.close()
        deadline = time.monotonic() + _CLOSE_S
        for thread in [thread for pool in pools for thread in pool.threads]:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, jobs: Jobs[_Job]) -> None:
        while (job := jobs.take()) is not None:
            began = time.perf_counter()
            self._handle(*job)
            with self._lock:
                self._num_jobs -= 1
                self._num_bytes -= len(job[1] or b"")
                self._busy_s += time.perf_counter() - began
            del job  # its bytes must not wait for the next one

    def _handle(self, job: EncodeItem, data: bytes | None) -> None:
        """One job's barrier: whatever happens, the item gets its answer."""
        try:
            prepared = self._prepare(job, data)
        except Cancelled:
            return
        except EpdError as error:
            self._on_broken(ItemBroken(job.item, named(error, job.modality, job.item)))
        else:
            if prepared is not None:
                self._on_prepared(job.item, prepared)

    def _prepare(self, job: EncodeItem, data: bytes | None) -> PreparedItem | None:
        """None: nobody wants the item any more, or an equal one is on its way."""
        if job.modality not in self._modalities:
            raise BadRequest(f"this model does not take {job.modality.value} items here")
        if data is not None:
            return self._read(Reading(job, data))
        if job.url is None:
            raise InternalError("the job carried neither bytes nor a URL")
        with self._fetch_room.reserve(self._media.limits(job.modality.value).max_bytes) as settle:
            if not self._wanted(job.item):
                return None
            with self._reader.doing(job, Activity.FETCH):
                data = self._fetch(job, job.url)
            settle(len(data))
            return self._read(Reading(job, data))

    def _fetch(self, job: EncodeItem, url: str) -> bytes:
        data = self._fetcher.fetch(url, job.modality, wanted=lambda: self._wanted(job.item))
        with self._lock:
            self._fetched_bytes.add(job.item, len(data))
        return data

    def _read(self, reading: Reading) -> PreparedItem | None:
        item = reading.job.item
        if not self._wanted(item):
            return None
        self._reader.times.sized(item, len(reading.data))
        key = self._reader.key(reading)
        if not self._leads(reading, key):
            return None
        with self._working.turn(reading.job.cost):
            if not self._wait_for_room(item):
                return None
            with self._turn:
                began = time.perf_counter()
                try:
                    return self._reader.prepare(reading, key, lambda: self._wanted(item))
                finally:
                    with self._lock:
                        self._work_s += time.perf_counter() - began
