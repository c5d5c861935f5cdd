"""What a test of one end says of the other."""

from __future__ import annotations

from epd.transfer.outgoing import Staged
from epd.types import Member


def member(segment: str, *, incarnation: str = "i1") -> Member:
    return Member(
        name="encode-0",
        incarnation=incarnation,
        stages=(),
        control="ipc:///x",
        bulk="ipc:///y",
        host="h",
        pool="p",
        segment=segment,
    )


def staged(found: Staged | None) -> Staged:
    assert found is not None
    return found
