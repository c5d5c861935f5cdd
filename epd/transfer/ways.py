"""Which way bytes take from one member to another: agreed by what both registered. Pure."""

from __future__ import annotations

from dataclasses import dataclass
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
    """The way to one receiver. `lease`: the file that its process holds locked while it lives."""

    way: Way
    lease: str = ""


FRAMES: Final = Route(Way.FRAMES)
NIXL: Final = Route(Way.NIXL)
SHARED: Final = Route(Way.SHARED)


def route(sender: Member, receiver: Member) -> Route:
    """The fastest that both can take.

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
