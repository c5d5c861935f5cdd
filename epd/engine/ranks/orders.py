"""What rank 0 orders, as rows of integers. The tensors that belong to an order follow it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from epd.attention import PagedSequence
from epd.engine.chunk import Move, MoveKind
from epd.engine.ranks.ends import Kind, Place
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


@dataclass(frozen=True, slots=True)
class Meet:
    """A worker that KV comes from or goes to is called by this number; no bytes: it is gone."""

    peer: int
    member: bytes


@dataclass(frozen=True, slots=True)
class Lend:
    """Put your heads of what a Read would give where the peer's rank gets at them."""

    task: int
    peer: int
    place: Place
    kv: Read


@dataclass(frozen=True, slots=True)
class Withdraw:
    """What was lent under this number is not any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Expect:
    """Fetch what you will be told to take, or not. Of `kv` only the sizes are known yet."""

    task: int
    peer: int
    place: Place
    kv: Write


@dataclass(frozen=True, slots=True)
class Discard:
    """What was fetched of this slot of a peer is not taken."""

    peer: int
    slot: int


@dataclass(frozen=True, slots=True)
class Take:
    """Write your heads, as a Write would, from where the peer's rank has put them."""

    task: int
    peer: int
    place: Place
    kv: Write


@dataclass(frozen=True, slots=True)
class Wipe:
    """What was lent at this place of the host's arena is not any more."""

    offset: int


@dataclass(frozen=True, slots=True)
class Record:
    """Record decode steps of these sizes, the largest first; see epd.engine.ranks.steps."""

    most_blocks: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """One of them, with these sequences. `positions`: the bits of float64."""

    size: int
    positions: tuple[int, ...]
    lengths: tuple[int, ...]
    blocks: tuple[tuple[int, ...], ...]


Handing = Meet | Lend | Withdraw | Wipe | Expect | Take | Discard
"""Between a rank and the one of its number of another worker."""

Order = Build | Forward | Logits | Read | Write | Move | Handing | Record | Replay

_KINDS: tuple[type[Order], ...] = (
    *(Build, Forward, Logits, Read, Write, Move),
    *(Meet, Lend, Withdraw, Wipe, Expect, Take, Discard),
    *(Record, Replay),
)


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
        case Meet(peer, member):
            row += peer, *member
        case (
            Lend(task, peer, place, kv)
            | Expect(task, peer, place, kv)
            | Take(task, peer, place, kv)
        ):
            row += task, peer, *_of_place(place), *to_row(kv)
        case Wipe(number) | Withdraw(number):
            row.append(number)
        case Discard(peer, slot):
            row += peer, slot
        case Record(most_blocks, sizes):
            row += most_blocks, *sizes
        case Replay(size, positions, lengths, tables):
            row += size, len(lengths), *positions, *lengths
            for table in tables:
                row += len(table), *table
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
        if made is Meet:
            peer, *member = values
            return Meet(peer, bytes(member))
        if made is Lend or made is Expect or made is Take:
            return _handing(made, values)
        if made is Record:
            most_blocks, *sizes = values
            return Record(most_blocks, tuple(sizes))
        if made is Replay:
            size, num, *rest = values
            positions, lengths, rest = rest[:num], rest[num : 2 * num], rest[2 * num :]
            return Replay(size, tuple(positions), tuple(lengths), tuple(_tables(rest)))
        return made(*values)  # type: ignore[arg-type]
    except (IndexError, TypeError, ValueError) as error:
        raise InternalError(f"not an order: {list(row)[:8]}") from error


def _of_place(place: Place) -> tuple[int, int, int, int]:
    return place.slot, place.offset, place.num_bytes, place.kind


def _handing(
    made: type[Lend] | type[Expect] | type[Take], values: Sequence[int]
) -> Lend | Expect | Take:
    task, peer, slot, offset, num_bytes, kind, *row = values
    place, kv = Place(slot, offset, num_bytes, Kind(kind)), from_row(row)
    if made is Lend and isinstance(kv, Read):
        return Lend(task, peer, place, kv)
    if made is Expect and isinstance(kv, Write):
        return Expect(task, peer, place, kv)
    if made is Take and isinstance(kv, Write):
        return Take(task, peer, place, kv)
    raise ValueError


def _tables(values: Sequence[int]) -> Iterator[tuple[int, ...]]:
    at = 0
    while at < len(values):
        end = at + 1 + values[at]
        yield tuple(values[at + 1 : end])
        at = end


def _sequences(values: Sequence[int]) -> Iterator[PagedSequence]:
    at = 0
    while at < len(values):
        num_new, kv_len, length = values[at : at + 3]
        at += 3 + length
        yield PagedSequence(num_new, kv_len, tuple(values[at - length : at]))
