"""Where ranks hand over, in the words of messages and in those of orders."""

from __future__ import annotations

import torch

from epd.engine.ranks.ends import Kind, Place
from epd.transfer.dtypes import name_of
from epd.wire.messages import Payload


def place_of(payload: Payload) -> Place:
    """Where each rank has its part."""
    kind = Kind.HOST
    if payload.parts >= 0:
        kind = Kind.SOCKET
    elif payload.remote:
        kind = Kind.NETWORK
    elif payload.device:
        kind = Kind.DEVICE
    return Place(payload.number, payload.offset, payload.nbytes, kind)


def payload_at(place: Place, like: torch.Tensor) -> Payload:
    """What is read there, as `place_of` has it from a message; from a socket it is a frame."""
    return Payload(
        dtype=name_of(like.dtype),
        shape=tuple(like.shape),
        nbytes=place.num_bytes,
        slot=-1 if place.kind is Kind.SOCKET else place.slot,
        offset=place.offset,
        device=place.kind is Kind.DEVICE,
        remote=place.kind is Kind.NETWORK,
    )
