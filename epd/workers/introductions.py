"""What processes of one worker tell each other of members: bytes, as the wire has them."""

from __future__ import annotations

from epd.transfer.segments import host_id
from epd.types import Member, Rank
from epd.wire.codec import decode, encode
from epd.wire.messages import Members


def packed(member: Member) -> bytes:
    """For another process of this worker."""
    return encode(Members(members=(member,)), to="")


def unpacked(data: bytes) -> Member:
    """What packed() made."""
    _, message = decode(data)
    (member,) = message.members
    assert isinstance(member, Member)
    return member


def introduced(name: str, facts: Rank) -> Member:
    """A rank to its rank 0: nothing but what it lends and reads with."""
    return Member(
        name=name,
        incarnation="",
        stages=(),
        control="",
        bulk="",
        host=host_id(),
        pool="",
        ranks=(facts,),
    )
