"""A bar on stderr: redrawn on a terminal, a line for each tenth elsewhere."""

from __future__ import annotations

import sys
import time

WIDTH = 30
TENTHS = 10
REDRAW_S = 0.1


class Progress:
    """Counts steps of one run; a quiet one shows nothing."""

    def __init__(self, title: str, total: int, *, quiet: bool = False) -> None:
        self._title = title
        self._total = total
        self._quiet = quiet
        self._done = 0
        self._tenth = 0
        self._drawn = 0.0

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._quiet:
            return
        if sys.stderr.isatty():
            self._draw(time.monotonic())
        elif (tenth := TENTHS * self._done // self._total) > self._tenth:
            self._tenth = tenth
            print(f"{self._title} {self._done}/{self._total}", file=sys.stderr, flush=True)

    def _draw(self, now: float) -> None:
        """Not for every step: drawing takes time, too."""
        last = self._done == self._total
        if now - self._drawn < REDRAW_S and not last:
            return
        self._drawn = now
        filled = WIDTH * self._done // self._total
        bar = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {self._done}/{self._total}"
        print(f"\r{self._title} {bar}", end="\n" if last else "", file=sys.stderr, flush=True)
