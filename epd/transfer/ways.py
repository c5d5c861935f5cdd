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


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one receiver. `lease`: the file that its process holds locked while it lives."""

    way: Way
    lease: str = ""


FRAMES: Final = Route(Way.FRAMES)
SHARED: Final = Route(Way.SHARED)


def route(sender: Member, receiver: Member) -> Route:
    """The fastest that both can take.

    CUDA IPC where they are on one host, the sender lends memory of its GPU and the receiver said
    that it reaches that GPU; otherwise shared memory on one host, and frames between hosts.
    """
    if sender.host != receiver.host:
        return FRAMES
    ours, theirs = sender.gpu, receiver.gpu
    if ours is not None and theirs is not None and ours.handle and ours.device in theirs.reaches:
        return Route(Way.CUDA_IPC, theirs.lease)
    return SHARED if sender.segment else FRAMES
