"""What rank 0 orders, as rows of integers. The tensors that belong to an order follow it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from epd.attention import PagedSequence
from epd.engine.chunk import Move, MoveKind
from epd.errors import InternalError

_MOVES = tuple(MoveKind)


@dataclass(frozen=True, slots=True)
class Build:
    """Make the pages."""

    num_blocks: int
    block_size: int
    num_host_blocks: int


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward. Tensors: embeddings, positions in `axes` rows (0: no rows), and where `rows` is
    not 0, the places and deeper slices of so many rows."""

    axes: int
    rows: int
    sequences: tuple[PagedSequence, ...]


@dataclass(frozen=True, slots=True)
class Logits:
    """Of so many hidden states, which follow."""

    num: int


@dataclass(frozen=True, slots=True)
class Read:
    """Give KV of these tokens of a sequence that has these blocks."""

    first_token: int
    num_tokens: int
    first_layer: int
    num_layers: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """Take KV of these tokens, which follows."""

    first_token: int
    num_tokens: int
    first_layer: int
    num_layers: int
    blocks: tuple[int, ...]


Order = Build | Forward | Logits | Read | Write | Move

_KINDS: tuple[type[Order], ...] = (Build, Forward, Logits, Read, Write, Move)


def to_row(order: Order) -> list[int]:
    """The order as integers."""
    row = [_KINDS.index(type(order))]
    match order:
        case Build(blocks, size, host):
            row += blocks, size, host
        case Forward(axes, rows, sequences):
            row += axes, rows
            for one in sequences:
                row += one.num_new, one.kv_len, len(one.blocks), *one.blocks
        case Logits(num):
            row.append(num)
        case Read(first, num, layer, layers, table) | Write(first, num, layer, layers, table):
            row += first, num, layer, layers, *table
        case Move(kind, pairs):
            row.append(_MOVES.index(kind))
            row += [number for pair in pairs for number in pair]
    return row


def from_row(row: Sequence[int]) -> Order:
    """The order back. InternalError for what is none."""
    try:
        kind, *values = row
        made = _KINDS[kind]
        if made is Forward:
            axes, rows, *rest = values
            return Forward(axes, rows, tuple(_sequences(rest)))
        if made is Read or made is Write:
            first, num, layer, layers, *table = values
            return made(first, num, layer, layers, tuple(table))
        if made is Move:
            which, *numbers = values
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            return Move(_MOVES[which], tuple(pairs))
        return made(*values)  # type: ignore[arg-type]
    except (IndexError, TypeError, ValueError) as error:
        raise InternalError(f"not an order: {list(row)[:8]}") from error


def _sequences(values: Sequence[int]) -> Iterator[PagedSequence]:
    at = 0
    while at < len(values):
        num_new, kv_len, length = values[at : at + 3]
        at += 3 + length
        yield PagedSequence(num_new, kv_len, tuple(values[at - length : at]))
