"""Runs a part of the check in a process of its own, within its time.

What a job found before it failed or ran out of time is kept. Processes are forked from one that
has loaded torch and has never touched a GPU.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from bench.gpu.rows import Fault, Row

PRELOAD = ["bench.gpu.preload"]
GRACE_S = 15.0
"""A job that is told to end stops the processes that it started."""

Facts = Mapping[str, float]
"""What earlier jobs measured and later ones need, by name."""

TRACE_LINES = 6


class Report:
    """A job's end of its pipe. Everything sent is kept, whatever comes after."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def row(self, row: Row) -> None:
        """A number."""
        self._pipe.send(row)

    def fact(self, name: str, value: float) -> None:
        """Something that later jobs need."""
        self._pipe.send((name, value))

    def fault(self, fault: Fault) -> None:
        """What is wrong; the job goes on."""
        self._pipe.send(fault)

    def part(self, section: str, model: str, run: Callable[[], None]) -> bool:
        """Run a part of the job; if it fails, the other parts still run. Did it work?"""
        try:
            run()
            return True
        except Exception:  # noqa: BLE001 - the barrier of one part
            last = traceback.format_exc().strip().splitlines()[-TRACE_LINES:]
            self.fault(Fault(section=section, model=model, reason="\n".join(last)))
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`module` has a function `measure(report, facts, **arguments)`; only the job imports it."""

    name: str
    model: str
    budget_s: float
    module: str
    arguments: Mapping[str, Any]


@dataclass(slots=True)
class Found:
    """All that jobs said."""

    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def run_jobs(
    jobs: list[Job],
    *,
    limit_s: float,
    log: Callable[[str], None],
    keep: Callable[[Found], None],
) -> Found:
    """One after the other, each within its own budget and what is left of `limit_s`.

    `keep` gets all that was found so far after every job, for whatever may end this process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    found = Found()
    end = time.monotonic() + limit_s
    for job in jobs:
        began = time.monotonic()
        budget = min(job.budget_s, end - began - GRACE_S)
        log(f"{job.name} {job.model}: at most {max(budget, 0):.0f} s")
        if budget <= 0:
            _fault(found, job, f"ran out of time: nothing left of {limit_s:.0f} s")
            continue
        _run(context, job, budget, found)
        found.seconds[f"{job.name} {job.model}".strip()] = time.monotonic() - began
        keep(found)
    return found


def _run(context: Any, job: Job, budget_s: float, found: Found) -> None:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(theirs, job, dict(found.facts)))
    process.start()
    theirs.close()
    ended = False
    try:
        ended = _listen(ours, time.monotonic() + budget_s, found)
    finally:
        _end(process, patience_s=GRACE_S if ended else 0.0)
    if not ended:
        _listen(ours, 0.0, found)  # what it said on its way out
        _fault(found, job, f"ran out of time after {budget_s:.0f} s")
    elif process.exitcode:
        _fault(found, job, f"its process ended with status {process.exitcode}")


def _listen(pipe: Connection, end: float, found: Found) -> bool:
    """False: the time was over before the job was."""
    while pipe.poll(max(0.0, end - time.monotonic())):
        try:
            said = pipe.recv()
        except EOFError:
            return True
        if isinstance(said, Row):
            found.rows.append(said)
        elif isinstance(said, Fault):
            found.faults.append(said)
        else:
            found.facts.update([said])
    return False


def _end(process: Any, *, patience_s: float) -> None:
    """Whatever it started ends with it: first asked, then with its whole process group."""
    process.join(patience_s)
    if process.is_alive():
        process.terminate()
        process.join(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _fault(found: Found, job: Job, reason: str) -> None:
    found.faults.append(Fault(section=job.name, model=job.model, reason=reason))


def _main(pipe: Connection, job: Job, facts: Facts) -> None:
    """In the job's process."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, _leave)
    report = Report(pipe)

    def run() -> None:
        importlib.import_module(job.module).measure(report, facts, **job.arguments)

    report.part(job.name, job.model, run)


def _leave(number: int, frame: FrameType | None) -> None:
    """So that what is open is closed on the way out."""
    sys.exit(128 + number)
