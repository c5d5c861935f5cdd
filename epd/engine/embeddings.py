"""MultiModalEmbeddingData: one request's embedding rows, merged from EmbeddingData parts.

Parts of an item may land in any order and more than once. Where rows go comes from the layouts
only, never from looking for token ids. Not thread-safe: the step thread owns it.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import torch

from epd.attention.staging import put
from epd.errors import InternalError
from epd.types import Prompt, PromptItem


class MultiModalEmbeddingData:
    """Rows of all items of one prompt, held from landing until their tokens have KV.

    `whole`: no token counts as ready before the last row has landed. `least_part`: so many tokens
    before a row that is due are worth a forward of their own; where rows are here that wait for
    it, all are. `merge_seconds`: how long the host worked on putting them into place.
    """

    def __init__(self, prompt: Prompt, *, whole: bool = False, least_part: int = 1) -> None:
        self.least_part = least_part
        self._num_tokens = prompt.num_tokens
        self._whole = whole
        self._closed = False
        self.merge_seconds = 0.0
        self._items = [
            _ItemRows(index, item, offset)
            for index, (item, offset) in enumerate(zip(prompt.items, prompt.offsets, strict=True))
        ]

    @property
    def ready_tokens(self) -> int:
        """Prompt tokens before the first row that has not landed."""
        for item in self._items:
            if not item.complete:
                return 0 if self._whole else item.token_of(item.num_landed)
        return self._num_tokens

    @property
    def atomic_spans(self) -> list[tuple[int, int]]:
        """Token ranges [start, end) that one forward has to take whole, ascending."""
        return [span for item in self._items if item.atomic for span in item.spans]

    @property
    def held_bytes(self) -> int:
        """Bytes of the rows kept here."""
        return sum(item.held_bytes for item in self._items)

    @property
    def kinds(self) -> set[tuple[int, str]]:
        """(width, dtype) of all rows that are to come."""
        return {(item.width, item.dtype) for item in self._items}

    def add(
        self,
        index: int,
        first_row: int,
        rows: torch.Tensor,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Take rows [first_row, first_row + len(rows)) of item `index`; repeats are ignored.

        The tensor is kept, not copied: the caller hands it over. `check` raises EpdError once the
        tensor's bytes are not to be used any more.
        """
        if self._closed:
            return
        if not 0 <= index < len(self._items):
            raise InternalError(f"rows for item {index} of {len(self._items)}")
        began = perf_counter()
        self._items[index].add(first_row, _Part(rows, check))
        self.merge_seconds += perf_counter() - began

    def gather(self, first: int, num: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What tokens [first, first + num) take: their places relative to `first`, and [k, width].

        None where they are all text. EpdError where bytes of theirs are not to be used any more.
        """
        began = perf_counter()
        places: list[int] = []
        parts: list[_Part] = []
        for item in self._items:
            wanted = item.rows_in(first, first + num)
            if wanted:
                places += [item.token_of(row) - first for row in wanted]
                parts += item.take(wanted)
        if not parts:
            return None
        for part in parts:
            part.check()
        found = torch.tensor(places), _joined([part.rows for part in parts])
        for part in parts:
            part.check()
        self.merge_seconds += perf_counter() - began
        return found

    def close(self) -> None:
        """The request is gone: free everything, and take no late part."""
        self._closed = True
        for item in self._items:
            item.close()

    def skip_before(self, token: int) -> None:
        """Tokens before `token` had KV from the start: no row of theirs is waited for."""
        for item in self._items:
            item.skip_before(token)

    def drop_before(self, token: int) -> None:
        """Tokens before `token` have KV: a part that only they took is freed."""
        for item in self._items:
            item.drop_before(token)


def _joined(rows: list[torch.Tensor]) -> torch.Tensor:
    """[k, width]; on a GPU where any of them is, for they may have come in different ways."""
    if len({each.device for each in rows}) > 1:
        device = next(each.device for each in rows if each.device.type != "cpu")
        rows = [put(each, device) for each in rows]
    return torch.cat(rows)


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows, perhaps in somebody else's memory: `check` before they are read, and after."""

    rows: torch.Tensor
    check: Callable[[], None]

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> _Part:
        return _Part(self.rows[start:stop], self.check)

    def copy(self) -> _Part:
        self.check()
        copy = self.rows.clone()
        self.check()
        return _Part(copy, lambda: None)


class _Parts:
    """What is there of one item: parts that do not overlap, by their first rows.

    Every call costs as much as the parts that it is about, however many there are.
    """

    def __init__(self) -> None:
        self.num_bytes = 0
        self._starts: list[int] = []  # ascending
        self._by_start: dict[int, _Part] = {}

    def put(self, start: int, part: _Part) -> None:
        insort(self._starts, start)
        self._by_start[start] = part
        self.num_bytes += part.rows.nbytes

    def behind(self, row: int) -> Iterator[tuple[int, _Part]]:
        """Those that end behind `row`, with where they start."""
        at = bisect_right(self._starts, row)
        if at and self._end(at - 1) > row:
            at -= 1
        for start in self._starts[at:]:
            yield start, self._by_start[start]

    def drop_before(self, row: int) -> None:
        """Free those that end there or earlier."""
        gone = 0
        while gone < len(self._starts) and self._end(gone) <= row:
            self.num_bytes -= self._by_start.pop(self._starts[gone]).rows.nbytes
            gone += 1
        del self._starts[:gone]

    def clear(self) -> None:
        self._starts.clear()
        self._by_start.clear()
        self.num_bytes = 0

    def _end(self, at: int) -> int:
        start = self._starts[at]
        return start + len(self._by_start[start])


class _ItemRows:
    """Rows of one item. Rows [0, num_dropped) are gone again, [.., num_landed) without a gap."""

    def __init__(self, index: int, item: PromptItem, offset: int) -> None:
        layout = item.layout
        self.width = layout.width
        self.dtype = layout.dtype
        self.atomic = layout.atomic
        self.num_landed = 0
        self._num_dropped = 0
        self._name = f"item {index} (from {item.encoder})"
        self._parts = _Parts()
        # Absolute token spans that take rows, and the number of the first row of each.
        self.spans = [(offset + start, offset + end) for start, end in layout.row_spans]
        self._firsts: list[int] = []
        self._num_rows = 0
        for start, end in layout.row_spans:
            self._firsts.append(self._num_rows)
            self._num_rows += end - start

    @property
    def complete(self) -> bool:
        return self.num_landed == self._num_rows

    @property
    def held_bytes(self) -> int:
        return self._parts.num_bytes

    def token_of(self, row: int) -> int:
        """The token that takes this row."""
        span = bisect_right(self._firsts, row) - 1
        return self.spans[span][0] + row - self._firsts[span]

    def rows_in(self, first: int, end: int) -> range:
        """Rows that tokens [first, end) take."""
        return range(self._row_at(first), self._row_at(end))

    def add(self, first_row: int, part: _Part) -> None:
        self._check(first_row, part.rows)
        end = first_row + len(part)
        for start, stop in list(self._gaps(max(first_row, self._num_dropped), end)):
            piece = part.slice(start - first_row, stop - first_row)
            # A slice would keep the whole part's memory, uncounted.
            self._parts.put(start, piece if len(piece) == len(part) else piece.copy())
        self._count_landed()

    def take(self, wanted: range) -> list[_Part]:
        """The rows in order, as slices of the parts."""
        taken = []
        at = wanted.start
        for start, part in self._parts.behind(at):
            if not start <= at < wanted.stop:
                break
            taken.append(part.slice(at - start, wanted.stop - start))
            at += len(taken[-1])
        if at != wanted.stop:
            raise InternalError(f"{self._name}: row {at} is not there")
        return taken

    def drop_before(self, token: int) -> None:
        gone = self._row_at(token)
        self._num_dropped = max(self._num_dropped, min(gone, self.num_landed))
        self._parts.drop_before(self._num_dropped)

    def skip_before(self, token: int) -> None:
        self.num_landed = max(self.num_landed, self._row_at(token))
        self._count_landed()
        self.drop_before(token)

    def close(self) -> None:
        self._parts.clear()

    def _count_landed(self) -> None:
        for start, part in self._parts.behind(self.num_landed):
            if start > self.num_landed:
                break
            self.num_landed = start + len(part)

    def _row_at(self, token: int) -> int:
        """Rows that tokens before `token` take."""
        return sum(min(max(token - start, 0), end - start) for start, end in self.spans)

    def _gaps(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges of [first, end) that no part holds."""
        for start, part in self._parts.behind(first):
            if start >= end:
                break
            if first < start:
                yield first, start
            first = start + len(part)
        if first < end:
            yield first, end

    def _check(self, first_row: int, rows: torch.Tensor) -> None:
        dtype = str(rows.dtype).removeprefix("torch.")
        if rows.ndim != 2 or rows.shape[1] != self.width or dtype != self.dtype:
            raise InternalError(
                f"{self._name}: rows of shape {tuple(rows.shape)} and {dtype}, "
                f"the layout says width {self.width} and {self.dtype}"
            )
        if not 0 <= first_row < first_row + len(rows) <= self._num_rows:
            raise InternalError(
                f"{self._name}: rows {first_row} to {first_row + len(rows)} of {self._num_rows}"
            )
