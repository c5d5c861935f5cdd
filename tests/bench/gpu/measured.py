"""Jobs for tests of how jobs are run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from bench.gpu.jobs import Facts, Report
from bench.gpu.rows import Row


def row(what: str, value: float = 0.0) -> Row:
    return Row(section="s", model="m", what=what, value=value, unit="")


def measure(report: Report, facts: Facts, *, act: str, path: Path) -> None:
    """One row, one fact, then what `act` says. `path` is written to when it is ended in order."""
    report.row(row(act, facts.get("last", 0.0)))
    report.fact("last", facts.get("last", 0.0) + 1)
    if act == "fails":
        raise ValueError("on purpose")
    if act == "dies":
        os._exit(3)
    if act == "hangs":

        def hang() -> None:
            try:
                signal.pause()
            finally:
                path.write_text("closed")
                report.row(row("on its way out"))

        report.part("a part", "m", hang)
