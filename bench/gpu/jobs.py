"""Runs a part of the check in a process of its own, within its time.

The limit of all jobs together is shared out by their budgets. A job may take its own share and what
those before it left of theirs, never any of those behind it. What a job found before it failed or
ran out of time is kept. Processes are forked from one that has loaded torch and has never touched a
GPU.
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
from typing import Any, cast

from bench.gpu.rows import Fault, Row

PRELOAD = ["bench.gpu.preload"]
GRACE_S = 15.0
"""A job that is told to end stops the processes that it started."""

Facts = Mapping[str, float]
"""What earlier jobs measured and later ones need, by name."""

TRACE_LINES = 6


@dataclass(frozen=True, slots=True)
class Began:
    """A part of a job."""

    section: str


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
        self._pipe.send(Began(section))
        try:
            run()
            return True
        except Exception:  # noqa: BLE001 - the barrier of one part
            last = traceback.format_exc().strip().splitlines()[-TRACE_LINES:]
            self.fault(Fault(section=section, model=model, reason="\n".join(last)))
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`module` has a function `measure(report, facts, **arguments)`; only the job imports it.

    `proves`: not to have come to its end is a failure, as it is of no job that only measures.
    """

    name: str
    model: str
    budget_s: float
    module: str
    arguments: Mapping[str, Any]
    proves: bool = False


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
    """One after the other, all of them within `limit_s`.

    `keep` gets all that was found so far after every job, for whatever may end this process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    found = Found()
    end = time.monotonic()
    share = max(0.0, limit_s - GRACE_S) / (sum(job.budget_s for job in jobs) or 1.0)
    for job in jobs:
        began = time.monotonic()
        end += share * job.budget_s
        log(f"{job.name} {job.model}: at most {max(end - began, 0):.0f} s")
        if end <= began:
            _late(found, job, f"out of time: nothing left of {limit_s:.0f} s")
            continue
        _run(context, job, end, found)
        found.seconds[f"{job.name} {job.model}".strip()] = time.monotonic() - began
        keep(found)
    return found


def _run(context: Any, job: Job, end: float, found: Found) -> None:
    began = time.monotonic()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(theirs, job, dict(found.facts)))
    process.start()
    theirs.close()
    heard, ended = Heard(found), False
    try:
        ended = heard.until(ours, end)
    finally:
        _end(process, patience_s=GRACE_S if ended else 0.0)
    if not ended:
        at = heard.began
        heard.until(ours, 0.0)  # what it said on its way out
        _late(found, job, f"out of time after {end - began:.0f} s, in {at}")
    elif process.exitcode:
        reason = f"its process ended with status {process.exitcode}"
        found.faults.append(Fault(section=job.name, model=job.model, reason=reason))


@dataclass(slots=True)
class Heard:
    """What a job says. `began`: the part that it is at."""

    found: Found
    began: str = "its start"

    def until(self, pipe: Connection, end: float) -> bool:
        """False: the time was over before the job was."""
        while pipe.poll(max(0.0, end - time.monotonic())):
            try:
                self._take(pipe.recv())
            except EOFError:
                return True
        return False

    def _take(self, said: object) -> None:
        found = self.found
        if isinstance(said, Row):
            found.rows.append(said)
        elif isinstance(said, Fault):
            found.faults.append(said)
        elif isinstance(said, Began):
            self.began = said.section
        else:
            name, value = cast(tuple[str, float], said)
            found.facts[name] = value


def _end(process: Any, *, patience_s: float) -> None:
    """Whatever it started ends with it: first asked, then with its whole process group."""
    process.join(patience_s)
    if process.is_alive():
        process.terminate()
        process.join(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _late(found: Found, job: Job, reason: str) -> None:
    found.faults.append(
        Fault(section=job.name, model=job.model, reason=reason, late=not job.proves)
    )


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
