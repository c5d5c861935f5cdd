"""What steps compute and where their time goes. Never waits for a device to find out."""

from __future__ import annotations

from time import perf_counter


class Phases:
    """Seconds of each phase, and how many forwards, sequences and tokens, over all steps."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("schedule", "plan", "forward", "sample", "other"), 0.0)
        self.counts = dict.fromkeys(("steps", "sequences", "tokens"), 0)
        self._since = 0.0

    def begin(self) -> None:
        """A step begins."""
        self._since = perf_counter()

    def ended(self, phase: str) -> None:
        """What was done since the last call belongs to `phase`."""
        now = perf_counter()
        self.seconds[phase] += now - self._since
        self._since = now

    def forward(self, num_sequences: int, num_tokens: int) -> None:
        """One forward over so many rows of so many sequences."""
        for name, num in zip(self.counts, (1, num_sequences, num_tokens), strict=True):
            self.counts[name] += num
