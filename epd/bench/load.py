"""Sends what was prepared, each request when it is due, and keeps what came of it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from epd.bench.asking import Asker, Prepared
from epd.bench.http import Client
from epd.bench.records import Record


@dataclass(slots=True, kw_only=True)
class Run:
    """Records in the order in which requests were due; those that were never sent have none."""

    started_at: float
    records: list[Record]
    seconds: float = 0.0
    interrupted: bool = False


async def run_load(
    url: str,
    requests: Sequence[Prepared],
    *,
    headers: Mapping[str, str],
    concurrency: int | None,
    timeout_s: float,
    on_end: Callable[[Record], None] = lambda record: None,
) -> Run:
    """Send every request once, no sooner than due, and no more than `concurrency` at a time.

    When the task is cancelled (Ctrl-C), what is under way is given up, and all that is known so
    far comes back.
    """
    client = Client(url, headers)
    began = time.perf_counter()
    run = Run(started_at=time.time(), records=[])
    asker = Asker(client, began, timeout_s)
    places = asyncio.Semaphore(concurrency) if concurrency else None

    async def one(prepared: Prepared, record: Record) -> None:
        try:
            await asker.ask(prepared, record)
        finally:
            if places is not None:
                places.release()
            on_end(record)

    with _undisturbed():
        try:
            async with asyncio.TaskGroup() as tasks:
                free_since = 0.0
                for prepared in requests:
                    await _until(began + prepared.due_s)
                    if places is not None and places.locked():
                        await places.acquire()
                        free_since = time.perf_counter() - began
                    elif places is not None:
                        await places.acquire()
                    due = max(prepared.due_s, free_since)
                    record = _record(prepared, due)
                    run.records.append(record)
                    tasks.create_task(one(prepared, record))
        except asyncio.CancelledError:
            run.interrupted = True
        finally:
            run.seconds = time.perf_counter() - began
            client.close()
    return run


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
def _undisturbed() -> Iterator[None]:
    """No pause of the garbage collector falls into a measurement: requests leave no cycles."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
