"""A bar on stderr: redrawn on a terminal, a line for each tenth elsewhere."""

from __future__ import annotations

import sys

WIDTH = 30
TENTHS = 10


class Progress:
    """Counts steps of one run."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._tenth = 0

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if sys.stderr.isatty():
            filled = WIDTH * self._done // self._total
            end = "\n" if self._done == self._total else ""
            bar = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {self._done}/{self._total}"
            print(f"\r{self._title} {bar}", end=end, file=sys.stderr, flush=True)
        elif (tenth := TENTHS * self._done // self._total) > self._tenth:
            self._tenth = tenth
            print(f"{self._title} {self._done}/{self._total}", file=sys.stderr, flush=True)
