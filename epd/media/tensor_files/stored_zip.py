"""Zip archives whose records are stored as they are: no compression, no encryption, no overlaps.

What two readers could understand differently is refused: a comment, bytes before the first record,
a second opinion in the zip64 fields. Checksums are not compared: torch may leave them out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from epd.errors import BadRequest

_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")

_MOST_RECORDS = 64
_HARMLESS_FLAGS = 1 << 3 | 1 << 11  # sizes repeated behind the record; names in UTF-8
_STORED = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    header: int
    size: int


def read_records(data: bytes) -> dict[str, memoryview]:
    """The content of each record by its name, without a copy. BadRequest for any other archive."""
    try:
        count, directory, end = _directory(data)
        entries = sorted(_entries(data, count, directory, end), key=lambda entry: entry.header)
        records: dict[str, memoryview] = {}
        at = 0
        for index, entry in enumerate(entries):
            if index == 0 and entry.header != 0:
                raise _damaged()
            start = _content(data, entry, at)
            at = start + entry.size
            records[entry.name.decode("ascii")] = memoryview(data)[start:at]
    except (struct.error, UnicodeDecodeError):
        raise _damaged() from None
    if at > directory or len(records) != count:
        raise _damaged()
    return records


def _directory(data: bytes) -> tuple[int, int, int]:
    """How many records there are, and where their directory begins and ends."""
    end = len(data) - _END.size
    if end < 0:
        raise _damaged()
    signature, disk, first, here, count, size, start, comment = _END.unpack_from(data, end)
    if (signature, disk, first, here, comment) != (b"PK\5\6", 0, 0, count, 0):
        raise _damaged()
    if not 0 < count <= _MOST_RECORDS:
        raise BadRequest(f"a zip file of {count} records, more than {_MOST_RECORDS} or none")
    if start + size == end - _LOCATOR_64.size - _END_64.size:
        end = _agreed_64(data, start + size, (count, count, size, start))
    if start + size != end:
        raise _damaged()
    return count, start, end


def _agreed_64(data: bytes, at: int, expected: tuple[int, int, int, int]) -> int:
    """torch writes the directory's facts in 64 bits too; they must be the same."""
    signature, _, _, _, disk, first, *facts = _END_64.unpack_from(data, at)
    locator = _LOCATOR_64.unpack_from(data, at + _END_64.size)
    if (signature, disk, first, tuple(facts)) != (b"PK\6\6", 0, 0, expected):
        raise _damaged()
    if locator[0] != b"PK\6\7" or locator[2] != at:
        raise _damaged()
    return at


def _entries(data: bytes, count: int, at: int, end: int) -> list[_Entry]:
    entries = []
    for _ in range(count):
        found = _CENTRAL.unpack_from(data, at)
        signature, flags, method = found[0], found[3], found[4]
        packed, size, name_length, extra, comment = found[8:13]
        disk, header = found[13], found[16]
        if signature != b"PK\1\2" or disk or flags & ~_HARMLESS_FLAGS:
            raise _damaged()
        if method != _STORED or packed != size:
            raise BadRequest("a zip file with compressed records, which torch.save never writes")
        name = data[at + _CENTRAL.size : at + _CENTRAL.size + name_length]
        entries.append(_Entry(name, header, size))
        at += _CENTRAL.size + name_length + extra + comment
    if at != end:
        raise _damaged()
    return entries


def _content(data: bytes, entry: _Entry, free: int) -> int:
    """Where the record's content starts; `free` is where the one before it has ended."""
    local = _LOCAL.unpack_from(data, entry.header)
    name_length, extra = int(local[9]), int(local[10])
    at = entry.header + _LOCAL.size
    if entry.header < free or local[0] != b"PK\3\4" or local[3] != _STORED:
        raise _damaged()
    if data[at : at + name_length] != entry.name:
        raise _damaged()
    return at + name_length + extra


def _damaged() -> BadRequest:
    return BadRequest("a damaged or unusual zip file")
