"""Which way bytes take from one member to another: agreed by what both registered. Pure.

Where both have equally many ranks, each hands its own KV heads to the one of its number, if all
pairs take the same way; otherwise all heads go through the first ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from epd.types import Member


class Way(Enum):
    """How a tensor travels."""

    FRAMES = "frames"  # over ZeroMQ
    SHARED = "shared memory"
    CUDA_IPC = "cuda_ipc"  # read where it is, in the sender's GPU
    NIXL = "nixl"  # read over the network from the sender's shared memory


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one receiver. `lease`: the files that its processes hold locked while they live,
    with commas between them. `ranks`: so many pairs of ranks hand over by themselves."""

    way: Way
    lease: str = ""
    ranks: int = 1


FRAMES: Final = Route(Way.FRAMES)
NIXL: Final = Route(Way.NIXL)
SHARED: Final = Route(Way.SHARED)


def of_rank(member: Member, rank: int) -> Member:
    """What it lends and reads with, as the other side's rank of this number sees it."""
    own = member.ranks[rank - 1] if rank else member
    return replace(member, segment=own.segment, gpu=own.gpu, remote=own.remote, ranks=())


def sockets_of(member: Member, rank: int) -> Member:
    """Those of a rank that follows, as of a member of their own."""
    own = member.ranks[rank - 1]
    return replace(
        of_rank(member, rank),
        name=own.name,
        incarnation=own.incarnation,
        control=own.control,
        bulk=own.bulk,
    )


def route(sender: Member, receiver: Member) -> Route:
    """The fastest that both can take, all their ranks alike."""
    size = 1 + len(sender.ranks)
    first = _route(sender, receiver)
    if size == 1 or size != 1 + len(receiver.ranks):
        return first
    followers = (*sender.ranks, *receiver.ranks)
    if first.way is Way.FRAMES and not all(own.bulk for own in followers):
        return first
    pairs = [_route(of_rank(sender, n), of_rank(receiver, n)) for n in range(size)]
    if {pair.way for pair in pairs} != {first.way}:
        return first
    return Route(first.way, ",".join(pair.lease for pair in pairs if pair.lease), size)


def _route(sender: Member, receiver: Member) -> Route:
    """Of one rank of each.

    CUDA IPC where they are on one host, the sender lends memory of its GPU and the receiver said
    that it reaches that GPU; otherwise shared memory on one host. Between hosts NIXL where both
    have it, else frames.
    """
    if sender.host != receiver.host:
        lends = sender.remote is not None and sender.remote.num_bytes > 0
        return NIXL if lends and receiver.remote is not None else FRAMES
    ours, theirs = sender.gpu, receiver.gpu
    if ours is not None and theirs is not None and ours.handle and ours.device in theirs.reaches:
        return Route(Way.CUDA_IPC, theirs.lease)
    return SHARED if sender.segment else FRAMES
