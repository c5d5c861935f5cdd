"""Sends what was prepared, each request when it is due, and keeps what came of it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from epd.bench.asking import INTERRUPTED, Asker, Prepared
from epd.bench.http import Client
from epd.bench.records import Record


@dataclass(slots=True, kw_only=True)
class Run:
    """Records in the order in which requests were due; those that were never sent have none.

    It began at `started_at` of the calendar, and at `began` of time.perf_counter().
    """

    started_at: float
    began: float
    records: list[Record] = field(repr=False)
    seconds: float = 0.0
    interrupted: bool = False

    def end(self) -> None:
        """It is over now, also for requests that had not begun to be sent."""
        self.seconds = time.perf_counter() - self.began
        for record in self.records:
            if not record.ended:
                record.ended, record.error = self.seconds, INTERRUPTED


async def run_load(
    url: str,
    requests: Iterable[Prepared],
    *,
    headers: Mapping[str, str],
    concurrency: int | None,
    timeout_s: float,
    on_end: Callable[[Record], None] = lambda record: None,
) -> Run:
    """Send every request once, no sooner than due, and no more than `concurrency` at a time.

    The next one is taken from `requests` when there is a place for it.

    When the task is cancelled (Ctrl-C), what is under way is given up, and all that is known so
    far comes back.
    """
    run = Run(started_at=time.time(), began=time.perf_counter(), records=[])
    places = _Places(concurrency, run.began)
    asker = Asker(Client(url, headers), run.began, timeout_s)

    async def one(prepared: Prepared, record: Record) -> None:
        try:
            await asker.ask(prepared, record)
        finally:
            places.give()
            on_end(record)

    try:
        async with asyncio.TaskGroup() as tasks:
            todo = iter(requests)
            while True:
                free_since = await places.take()
                if (prepared := next(todo, None)) is None:
                    break
                await _until(run.began + prepared.due_s)
                record = _record(prepared, max(prepared.due_s, free_since))
                run.records.append(record)
                tasks.create_task(one(prepared, record))
    except asyncio.CancelledError:
        run.interrupted = True
    finally:
        run.end()
        asker.close()
    return run


class _Places:
    """So many requests at once, or any number."""

    def __init__(self, num: int | None, began: float) -> None:
        self._free = asyncio.Semaphore(num) if num else None
        self._began = began

    async def take(self) -> float:
        """When there was one, in seconds since the beginning; 0 where nobody had to wait."""
        if self._free is None:
            return 0.0
        waits = self._free.locked()
        await self._free.acquire()
        return time.perf_counter() - self._began if waits else 0.0

    def give(self) -> None:
        """One is free again."""
        if self._free is not None:
            self._free.release()


def _record(prepared: Prepared, due: float) -> Record:
    return Record(
        sent=due,  # until it is
        due=due,
        kind=prepared.kind,
        asked_tokens=prepared.asked_tokens,
        sent_bytes=prepared.num_bytes,
    )


async def _until(moment: float) -> None:
    """Others run in the meantime, at least once even where the moment is over."""
    await asyncio.sleep(max(0.0, moment - time.perf_counter()))


@contextmanager
def undisturbed() -> Iterator[None]:
    """No pause of the garbage collector falls into a measurement: requests leave no cycles."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
