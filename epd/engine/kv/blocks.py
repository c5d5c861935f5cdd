"""Which KV blocks belong to which request. Pure bookkeeping: no tensors.

A reservation is all or nothing and never waits. Until its prompt is done a request has one table
of blocks in token order; then one for each choice. Choices share the prompt's blocks. A block that
several tables hold is never written: who writes next gets a copy (copy on write).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from epd.engine.kv.pages import Pages
from epd.types import RequestKey

PROMPT = -1
"""In place of a choice: the table that a request has until it is forked."""


@dataclass(slots=True)
class _Held:
    tables: dict[int, list[int]]
    spare: list[int]  # reserved for what the choices will need


@dataclass(frozen=True, slots=True)
class Suspended:
    """What a request held. `tables` count blocks from 0 in the order of `blocks`, where they were.

    `growth`: blocks that it needs beside these to go on.
    """

    blocks: tuple[int, ...]
    hashes: tuple[bytes | None, ...]
    tables: dict[int, list[int]]
    growth: int


class BlockPool:
    """Fixed blocks of `block_size` tokens, numbered from 0."""

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._pages = Pages(num_blocks)
        self._held: dict[RequestKey, _Held] = {}

    # ---- room

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds, cached ones too."""
        return self._pages.num_free

    @property
    def num_cached(self) -> int:
        """Blocks that nobody holds and that a prefix may find."""
        return self._pages.num_cached

    @property
    def num_used(self) -> int:
        """Blocks held by someone."""
        return self.num_blocks - self._pages.num_free

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that `num_tokens` take."""
        return -(-num_tokens // self.block_size)

    def fits(self, num_tokens: int) -> bool:
        """Could an idle pool hold this many tokens of one request?"""
        return self.blocks_for(num_tokens) <= self.num_blocks

    def reserve(self, key: RequestKey, num_tokens: int, hashes: Sequence[bytes] = ()) -> int | None:
        """Hold blocks for `num_tokens` in all. None: no room, and nothing changed.

        Else how many of the leading pages, whose hashes are given, were found and hold KV.
        """
        assert key not in self._held, "reserved twice"
        found = self._find(hashes)
        missing = self.blocks_for(num_tokens) - len(found)
        if missing > self._pages.num_free_beside(found):
            return None
        self._pages.share(found)
        self._held[key] = _Held({PROMPT: found + self._pages.take(missing)}, [])
        return len(found)

    def release(self, key: RequestKey) -> None:
        """Give everything back; unknown keys are ignored."""
        held = self._held.pop(key, None)
        if held is not None:
            for table in held.tables.values():
                self._pages.give_back(table)
            self._pages.give_back(held.spare)

    # ---- tables

    def keys(self) -> frozenset[RequestKey]:
        """Who holds blocks."""
        return frozenset(self._held)

    def table(self, key: RequestKey, choice: int = PROMPT) -> list[int] | None:
        """Blocks in token order; None where there is no such table. Not to be changed."""
        held = self._held.get(key)
        return None if held is None else held.tables.get(choice)

    def any_table(self, key: RequestKey) -> list[int] | None:
        """A table that has the prompt's KV."""
        held = self._held.get(key)
        return None if held is None else next(iter(held.tables.values()))

    def holds(self, key: RequestKey, num_tokens: int, choice: int = PROMPT) -> bool:
        """Does the table cover `num_tokens`?"""
        table = self.table(key, choice)
        return table is not None and len(table) * self.block_size >= num_tokens

    def fork(self, key: RequestKey, choices: Iterable[int], num_tokens: int) -> None:
        """From here on each choice has a table of its own; `num_tokens` are common to all."""
        held = self._held[key]
        table = held.tables.pop(PROMPT)
        common = self.blocks_for(num_tokens)
        held.spare += table[common:]
        for choice in choices:
            held.tables[choice] = table[:common]
            self._pages.share(table[:common])
        self._pages.give_back(table[:common])

    def extend(self, key: RequestKey, lengths: Mapping[int, int]) -> list[tuple[int, int]] | None:
        """Let each choice write its token number length - 1, one more than it has KV of.

        All or nothing. The copies (from, to) to make first; None: no room.
        """
        held = self._held[key]
        if self._missing(held, lengths) - len(held.spare) > self._pages.num_free:
            return None
        copies = []
        for choice, length in lengths.items():
            table, page = held.tables[choice], (length - 1) // self.block_size
            if page == len(table):
                table.append(self._take_one(held))
            elif self._pages.refs(table[page]) > 1:
                shared, table[page] = table[page], self._take_one(held)
                self._pages.give_back([shared])
                copies.append((shared, table[page]))
        return copies

    def drop(self, key: RequestKey, choice: int) -> None:
        """The choice has ended."""
        self._pages.give_back(self._held[key].tables.pop(choice))

    # ---- prefixes

    def publish(self, key: RequestKey, choice: int, page: int, page_hash: bytes) -> None:
        """A full page whose KV exists: requests that begin alike may use it."""
        self._pages.publish(self._held[key].tables[choice][page], page_hash)

    def disown(self, key: RequestKey) -> None:
        """What the request's pages hold is not to be trusted: nobody shall find them."""
        held = self._held.get(key)
        for table in held.tables.values() if held is not None else ():
            for block in table:
                self._pages.forget(block)

    # ---- preemption

    def suspend(self, key: RequestKey, lengths: Mapping[int, int]) -> Suspended:
        """Take everything from a forked request; `lengths` counts the tokens with KV."""
        held = self._held[key]
        growth = self._missing(held, {choice: num + 1 for choice, num in lengths.items()})
        tables = {
            choice: held.tables[choice][: self.blocks_for(num)] for choice, num in lengths.items()
        }
        numbers: dict[int, int] = {}
        for table in tables.values():
            for block in table:
                numbers.setdefault(block, len(numbers))
        suspended = Suspended(
            blocks=tuple(numbers),
            hashes=tuple(map(self._pages.hash_of, numbers)),
            tables={choice: [numbers[block] for block in t] for choice, t in tables.items()},
            growth=max(1, growth),
        )
        self.release(key)
        return suspended

    def could_resume(self, suspended: Suspended) -> bool:
        """Is there room now?"""
        found, missing = self._found(suspended)
        free = self._pages.num_free_beside(found.values())
        return len(missing) + suspended.growth <= free

    def could_ever_resume(self, suspended: Suspended) -> bool:
        """Would an idle pool have room?"""
        return len(suspended.blocks) + suspended.growth <= self.num_blocks

    def resume(self, key: RequestKey, suspended: Suspended) -> list[tuple[int, int]]:
        """Hold again what could_resume() found room for.

        Pages still cached are used. The others, (number, block), are to be written; they count as
        published again.
        """
        found, missing = self._found(suspended)
        self._pages.share(found.values())
        place = found | dict(zip(missing, self._pages.take(len(missing)), strict=True))
        tables = {c: [place[number] for number in t] for c, t in suspended.tables.items()}
        for table in tables.values():
            self._pages.share(table)
        self._pages.give_back(list(place.values()))
        self._held[key] = _Held(tables, [])
        for number in missing:
            page_hash = suspended.hashes[number]
            if page_hash is not None:
                self._pages.publish(place[number], page_hash)
        return [(number, place[number]) for number in missing]

    def check(self) -> None:
        """Every block is free, cached, or held with the right count."""
        self._pages.check(
            block
            for held in self._held.values()
            for blocks in (*held.tables.values(), held.spare)
            for block in blocks
        )

    def _find(self, hashes: Sequence[bytes]) -> list[int]:
        found = []
        for page_hash in hashes:
            block = self._pages.find(page_hash)
            if block is None:
                break
            found.append(block)
        return found

    def _found(self, suspended: Suspended) -> tuple[dict[int, int], list[int]]:
        """Numbers of suspended blocks that are still cached, and of the others."""
        numbers = sorted({number for table in suspended.tables.values() for number in table})
        found = {}
        for number in numbers:
            block = self._pages.find(suspended.hashes[number])
            if block is not None:
                found[number] = block
        return found, [number for number in numbers if number not in found]

    def _missing(self, held: _Held, lengths: Mapping[int, int]) -> int:
        """Blocks that extend() takes: new pages, and copies for all but the last of each page."""
        new = 0
        written: Counter[int] = Counter()
        for choice, length in lengths.items():
            table, page = held.tables[choice], (length - 1) // self.block_size
            assert page <= len(table), "more than one token ahead"
            if page == len(table):
                new += 1
            else:
                written[table[page]] += 1
        copies = (min(count, self._pages.refs(b) - 1) for b, count in written.items())
        return new + sum(copies)

    def _take_one(self, held: _Held) -> int:
        return held.spare.pop() if held.spare else self._pages.take(1)[0]
