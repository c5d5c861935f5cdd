"""Ranks that are processes with Gloo between them, as a worker's are, but fused like on a card."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist

from epd.attention import ATTENTION, SdpaBackend, register
from epd.engine.ranks.following import Follower
from epd.engine.ranks.leading import LedModel
from epd.engine.ranks.orders import Order, from_row, to_row
from epd.models.fused import fuse
from epd.models.group import Group, Ranks
from epd.models.language import LanguageModel
from epd.models.partial import load_part
from epd.models.shards import Shards
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.torchvision_shim import prepare_torchvision

LEAVE_S = 60.0


def load(
    checkpoint: Checkpoint, *, fused: bool, group: Group | None = None, keep_blocks: bool = False
) -> LanguageModel:
    """A rank's part, or the whole, as it is loaded onto a card, but on the CPU."""
    prepare_torchvision()
    register()
    adapter = checkpoint.adapter()
    shards = None if group is None else Shards(adapter, group)
    parts = adapter.language_parts()
    model = load_part(
        checkpoint, parts, device="cpu", dtype="float32", shards=shards, keep_blocks=keep_blocks
    )
    decoder = adapter.decoder(model)
    decoder.config._attn_implementation = ATTENTION
    if shards is not None:
        shards.install(model)
    if fused:
        fuse(model, decoder)
    return LanguageModel(adapter, model, group=group)


@contextmanager
def two_processes(
    checkpoint: Checkpoint, meeting: Path, *, fused: bool, keep_blocks: bool = False
) -> Iterator[LedModel]:
    """A model on this process and another. One at a time: a process is in one group."""
    ours, theirs = multiprocessing.Pipe()
    start = multiprocessing.get_context("spawn").Process
    how = {"fused": fused, "keep_blocks": keep_blocks}
    other = start(target=_follow, args=(checkpoint.path, meeting, theirs, how))
    other.start()
    theirs.close()

    def send(order: Order) -> None:
        ours.send(to_row(order))

    group = Ranks(0, 2, meeting, "cpu")
    try:
        yield LedModel(load(checkpoint, group=group, **how), group, send)
    finally:
        ours.close()
        dist.destroy_process_group()
        other.join(LEAVE_S)
    assert other.exitcode == 0


def _follow(path: Path, meeting: Path, orders: Connection, how: dict[str, bool]) -> None:
    torch.set_num_threads(1)
    group = Ranks(1, 2, meeting, "cpu")
    part = load(read_checkpoint(path), group=group, **how)
    Follower(part, group, SdpaBackend()).follow(_rows(orders))
    dist.destroy_process_group()  # its thread would be there when the process is not


def _rows(orders: Connection) -> Iterator[Order]:
    while True:
        try:
            yield from_row(orders.recv())
        except EOFError:
            return
