"""One rank's own memory on a GPU: an answer comes when the GPU is done, never before."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from epd.config.sections import WireConfig
from epd.engine.ranks.ends import Kind, Place
from epd.errors import EpdError, InternalError
from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing
from epd.types import Rank
from epd.wire.messages import Payload
from epd.wire.zmq_links import ZmqLinks
from epd.workers.introductions import introduced, packed
from epd.workers.places import place_of
from epd.workers.rank_ends import RankEnds
from epd.workers.rank_links import RankLinks
from tests.transfer.gpu import FakeGpu, World

ARENA = 4096


class Party:
    """Rank 1 of a worker, and what it answered."""

    def __init__(self, world: World, *, lends: bool) -> None:
        self.gpu = FakeGpu(world)
        self.answers: list[tuple[int, EpdError | None]] = []
        size = ARENA if lends else 0
        self.ends = RankEnds(
            1,
            lambda task, error: self.answers.append((task, error)),
            outgoing=Outgoing(arena_bytes=size, runtime=self.gpu, device_bytes=size),
            incoming=Incoming(None if lends else self.gpu),
            runtime=self.gpu,
        )

    def meets(self, other: Party) -> None:
        member = replace(introduced("prefill-0", Rank()), ranks=(other.ends.facts,))
        self.ends.meet(4, packed(member))


@pytest.fixture(params=[Kind.DEVICE, Kind.HOST], ids=["in the GPU", "on the host"])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(slot=3, offset=256, num_bytes=64, kind=request.param)


def test_bytes_go_from_rank_to_rank_and_each_says_when_it_is_done(place: Place) -> None:
    world = World()
    sender, reader = Party(world, lends=True), Party(world, lends=False)
    reader.meets(sender)
    values = torch.arange(16, dtype=torch.float32)
    sender.ends.lend(0, 4, place, sender.gpu.tensor(values))
    if (
        place.kind is Kind.HOST
    ):  # a copy to the host is under way, and nobody is told before it is done
        assert sender.answers == [] and sender.ends.waits
        world.run_all()
        sender.ends.settle()
    assert sender.answers == [(0, None)] and not sender.ends.waits
    got = reader.gpu.tensor(torch.zeros(16))
    use = got.copy_ if place.kind is Kind.HOST else lambda part: reader.gpu.copy(got, part)
    reader.ends.take(1, 4, place, torch.empty(16, device="meta"), use)
    if place.kind is Kind.DEVICE:  # its stream reads later
        reader.ends.settle()
        assert reader.answers == [] and reader.ends.waits
        world.run_all()
        reader.ends.settle()
    assert reader.answers == [(1, None)] and torch.equal(got, values)


def test_a_part_for_a_socket_is_kept_once_it_has_come_from_the_gpu() -> None:
    """Who asks before gets no bytes that are not there."""
    world, answers = World(), list[tuple[int, EpdError | None]]()
    gpu = FakeGpu(world)
    make = partial(ZmqLinks, "p.1", "tcp://127.0.0.1", WireConfig())
    links = RankLinks(make)
    ends = RankEnds(
        1,
        lambda task, error: answers.append((task, error)),
        outgoing=Outgoing(arena_bytes=0, runtime=gpu),
        incoming=Incoming(),
        links=links,
    )
    ends.meet(4, packed(introduced("decode-0", links.facts)))
    values = torch.arange(16, dtype=torch.float32)
    ends.lend(0, 4, Place(9, 0, 64, Kind.SOCKET), gpu.tensor(values))
    assert not answers and not links._kept and ends.waits
    world.run_all()
    ends.settle()
    assert answers == [(0, None)] and not ends.waits
    frame = links._kept[9].part.frame
    assert frame is not None and bytes(frame) == values.numpy().tobytes()
    ends.withdraw(9)
    assert not links._kept
    links.close()


def test_what_is_not_there_is_answered_with_the_rank_and_the_reason() -> None:
    world = World()
    sender, reader = Party(world, lends=True), Party(world, lends=False)
    used: list[torch.Tensor] = []
    like = torch.empty(16, device="meta")
    place = Place(slot=3, offset=256, num_bytes=64, kind=Kind.DEVICE)
    reader.ends.take(0, 4, place, like, used.append)
    reader.meets(sender)
    outside = Place(slot=3, offset=ARENA, num_bytes=64, kind=Kind.DEVICE)
    reader.ends.take(1, 4, outside, like, used.append)
    reader.ends.take(2, 4, Place(3, 256, 32, Kind.DEVICE), like, used.append)
    reader.ends.meet(4, b"")
    reader.ends.take(3, 4, place, like, used.append)
    assert [task for task, _ in reader.answers] == [0, 1, 2, 3] and not used
    for _, error in reader.answers:
        assert isinstance(error, InternalError) and error.message.startswith("rank 1: ")


def test_a_part_of_another_size_than_its_place_is_our_own_mistake() -> None:
    party = Party(World(), lends=True)
    with pytest.raises(InternalError, match="64 bytes for a place of 60"):
        party.ends.lend(0, 4, Place(1, 64, 60, Kind.HOST), torch.zeros(16))


def test_a_place_is_what_the_message_says() -> None:
    payload = Payload(dtype="float32", shape=(2,), nbytes=8, slot=1, offset=64, device=True)
    assert place_of(payload) == Place(1, 64, 8, Kind.DEVICE)
