"""Bulk sends: each chunk is gathered once, and nobody asks again for what will be told."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from epd.transfer.outgoing import Outgoing
from epd.transfer.segments import STAMP_BYTES
from epd.transfer.ways import FRAMES, SHARED
from epd.types import RequestKey
from epd.wire.links import Buffer
from epd.workers.bulk import AHEAD, BulkSender, Chunk
from tests.transfer.gpu import FakeGpu, World

R, OTHER = RequestKey("r", 1), RequestKey("other", 1)
CHUNK_BYTES = 1 << 12
SLOT_BYTES = CHUNK_BYTES + STAMP_BYTES


class Links:
    """Takes messages until it is told to be full."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.frames: list[Any] = []
        self.full = False

    def send(self, to: str, message: object, frame: Buffer | None = None) -> bool:
        if self.full:
            return False
        self.sent.append(message)
        self.frames.append(frame)
        return True


class Bench:
    """An arena with room for two chunks; `reads` are the chunks that were gathered."""

    def __init__(self) -> None:
        self.links = Links()
        self.outgoing = Outgoing(arena_bytes=2 * SLOT_BYTES)
        links: Any = self.links
        self.bulk = BulkSender(links, self.outgoing, lambda name: SHARED, CHUNK_BYTES)
        self.reads: list[int] = []

    def add(self, num: int, *, to: str = "p", key: RequestKey = R) -> None:
        self.bulk.add(to, key, iter([self.chunk(index) for index in range(num)]))

    def chunk(self, index: int) -> Chunk:
        def read() -> torch.Tensor:
            self.reads.append(index)
            return torch.full((CHUNK_BYTES // 4,), float(index))

        return Chunk(read, lambda payload: payload)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.outgoing.close()


def test_a_chunk_that_waits_for_the_arena_is_gathered_once(bench: Bench) -> None:
    """However often it is tried; room is announced, so nobody needs to try soon."""
    bench.add(4)
    for _ in range(5):
        bench.bulk.pump()
    assert bench.reads == [0, 1, 2]
    assert not bench.bulk.refused
    bench.outgoing.give_back(bench.links.sent[0].slot, by="p")
    bench.bulk.pump()
    assert len(bench.links.sent) == 3 and bench.reads == [0, 1, 2, 3]


def test_a_chunk_that_its_link_refuses_is_staged_once(bench: Bench) -> None:
    """The link does not say when it has room, so it is to be asked again soon."""
    bench.links.full = True
    bench.add(1)
    for _ in range(3):
        bench.bulk.pump()
        assert bench.bulk.refused
    assert bench.reads == [0] and bench.outgoing.in_use == SLOT_BYTES
    bench.links.full = False
    bench.bulk.pump()
    assert len(bench.links.sent) == 1 and not bench.bulk.refused


def test_a_send_that_is_dropped_gives_back_what_was_staged_for_it(bench: Bench) -> None:
    """And the next one of that peer goes on."""
    bench.links.full = True
    bench.add(1)
    bench.add(1, key=OTHER)
    bench.bulk.pump()
    bench.bulk.drop(R)
    assert bench.outgoing.in_use == 0
    bench.links.full = False
    bench.bulk.pump()
    assert len(bench.links.sent) == 1 and bench.reads == [0, 0]


def test_one_peer_that_waits_does_not_hold_up_another(bench: Bench) -> None:
    bench.add(3, to="slow")
    bench.bulk.pump()
    bench.outgoing.give_back(bench.links.sent[0].slot, by="slow")
    bench.add(1, to="quick")
    bench.bulk.peer_lost("slow")
    bench.bulk.pump()
    assert len(bench.links.sent) == 3
    assert bench.bulk.num_sends == 0


def test_what_was_sent_is_counted_in_bytes(bench: Bench) -> None:
    """Payloads that are on their way, not those that wait."""
    bench.add(3)
    bench.bulk.pump()
    assert bench.bulk.bytes_sent == 2 * CHUNK_BYTES


def test_chunks_that_come_from_a_gpu_come_beside_each_other_and_go_in_order() -> None:
    """None before its bytes are there; only so many at once; a dropped one is not sent."""
    world = World()
    gpu, links = FakeGpu(world), Links()
    outgoing = Outgoing(arena_bytes=0, runtime=gpu)
    anything: Any = links
    bulk = BulkSender(anything, outgoing, lambda name: FRAMES, CHUNK_BYTES)
    tensors = [gpu.tensor(torch.full((4,), float(index))) for index in range(AHEAD + 2)]
    chunks = [Chunk(partial(_same, each), lambda payload: payload) for each in tensors]
    bulk.add("p", R, iter(chunks))
    bulk.pump()
    assert not links.sent and bulk.refused
    assert len(gpu.copies.todo) == 3 * AHEAD, "each waits, copies and says so"
    world.run_all()
    bulk.pump()
    assert len(links.sent) == AHEAD
    bulk.drop(R)
    world.run_all()
    bulk.pump()
    assert len(links.sent) == AHEAD and bulk.num_sends == 0 and not bulk.refused
    assert [memoryview(frame).cast("B").cast("f")[0] for frame in links.frames] == [0, 1, 2, 3]


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
