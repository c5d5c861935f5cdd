"""Keeps choices to their grammars: which token may come is found by threads while the model runs.

A choice's next mask is begun as soon as its last token is known on the host, so sending tokens,
planning the next step and its forward all pass meanwhile; sampling waits for what is left.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from epd.attention.staging import put
from epd.engine.adjustments import Adjustment
from epd.errors import EpdError
from epd.grammar import Grammars, Guide
from epd.types import SamplingParams

_THREADS = min(8, os.cpu_count() or 1)  # they hold no lock while they look for masks


class Guided(Adjustment):
    """Tokens that a choice's grammar does not allow have no chance."""

    def __init__(self, vocab_size: int, device: torch.device, grammars: Grammars) -> None:
        super().__init__(device)
        self._vocab_size = vocab_size
        self._grammars = grammars
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="masks")
        self._courses: dict[int, _Course] = {}  # by row
        if grammars.eos_token_ids:
            self._threads.submit(grammars.load)

    def wanted(self, sampling: SamplingParams) -> bool:
        return bool(sampling.grammar)

    def enter(
        self, row: int, sampling: SamplingParams, prompt: Sequence[int], generated: Sequence[int]
    ) -> None:
        course = self._courses[row] = _Course()
        before = tuple(generated)
        course.next = self._threads.submit(course.begin, self._grammars, sampling.grammar, before)

    def forget(self, slot: int) -> None:
        row = int(self._rows[slot]) - 1
        super().forget(slot)
        if row >= 0:
            self._courses.pop(row).cancel()

    def adjust(self, scores: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
        packed = self.masks(rows, (self._vocab_size + 7) // 8)
        allowed = _unpacked(put(packed, self._device))[:, : self._vocab_size]
        at = put(places, self._device)
        scores[at] = scores[at].masked_fill_(~allowed, -torch.inf)

    def masks(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        """[M, size] uint8 on the host: a bit for each id that may come, the lowest first."""
        masks = b"".join(self._courses[row].mask(size) for row in rows.tolist())
        if not masks:
            return torch.empty(0, size, dtype=torch.uint8)
        return torch.frombuffer(bytearray(masks), dtype=torch.uint8).view(len(rows), size)

    def accept(self, rows: torch.Tensor, places: torch.Tensor, ids: torch.Tensor) -> None:
        """Only ids that are on the host tell: see chosen()."""

    def chosen(self, slots: torch.Tensor, ids: Sequence[int]) -> None:
        """These ids were chosen for the slots, in a step that adjust() was called in."""
        for slot, token in zip(slots.tolist(), ids, strict=True):
            row = int(self._rows[slot]) - 1
            if row >= 0 and token >= 0:
                course = self._courses[row]
                course.next = self._threads.submit(course.go_on, token)

    @property
    def any(self) -> bool:
        """Whether there is a choice with a grammar."""
        return bool(self._courses)

    def fault(self, slot: int) -> EpdError | None:
        """Why the slot's grammar allows nothing any more."""
        course = self._courses.get(int(self._rows[slot]) - 1)
        return None if course is None else course.error


class _Course:
    """One choice's way through its grammar. `next` finds the mask of its next token.

    At most one thread works for it at a time: the next task begins when the last mask was used.
    """

    def __init__(self) -> None:
        self.error: EpdError | None = None
        self.next: Future[bytes] | None = None
        self._guide: Guide | None = None

    def begin(self, grammars: Grammars, grammar: str, generated: Sequence[int]) -> bytes:
        """On a thread: where these tokens lead, and what may come there."""
        self._guide = grammars.guide(grammar, generated)
        return self._guide.mask()

    def go_on(self, token: int) -> bytes:
        """On a thread: what may come after this token."""
        assert self._guide is not None
        self._guide.accept((token,))
        return self._guide.mask()

    def mask(self, size: int) -> bytes:
        """`size` bytes; all zero where the grammar became too much, and `error` says so."""
        assert self.next is not None
        try:
            return self.next.result()[:size].ljust(size, b"\0")
        except EpdError as error:
            self.error = error
            return bytes(size)

    def cancel(self) -> None:
        """Nobody asks for its mask any more."""
        if self.next is not None:
            self.next.cancel()


def _unpacked(packed: torch.Tensor) -> torch.Tensor:
    """[M, bytes] -> [M, 8 * bytes] bools, the lowest bit of each byte first."""
    bits = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[:, :, None] >> bits) & 1).bool().flatten(1)
