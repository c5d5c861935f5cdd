"""Sends what was prepared, each request when it is due, and keeps what came of it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from epd.bench.asking import Asker, Prepared
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
    client = Client(url, headers)
    places = asyncio.Semaphore(concurrency) if concurrency else None
    began = time.perf_counter()
    run = Run(started_at=time.time(), began=began, records=[])
    asker = Asker(client, began, timeout_s)
    todo = iter(requests)

    async def one(prepared: Prepared, record: Record) -> None:
        try:
            await asker.ask(prepared, record)
        finally:
            if places is not None:
                places.release()
            on_end(record)

    try:
        async with asyncio.TaskGroup() as tasks:
            while True:
                free_since = await _place(places, began)
                prepared = next(todo, None)
                if prepared is None:
                    break
                await _until(began + prepared.due_s)
                record = _record(prepared, max(prepared.due_s, free_since))
                run.records.append(record)
                tasks.create_task(one(prepared, record))
    except asyncio.CancelledError:
        run.interrupted = True
    finally:
        run.seconds = time.perf_counter() - began
        client.close()
    return run


async def _place(places: asyncio.Semaphore | None, began: float) -> float:
    """Wait for one of so many; when it was free, or 0 where nobody had to wait."""
    if places is None:
        return 0.0
    waits = places.locked()
    await places.acquire()
    return time.perf_counter() - began if waits else 0.0


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
