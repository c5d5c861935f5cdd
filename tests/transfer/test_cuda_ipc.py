"""Memory of a GPU that processes share, on that GPU and on another one: whatever order they work
in, no byte is read before it is there, or used anew before its reader is done."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epd.errors import ProtocolError
from epd.transfer.cuda_ipc import DeviceArena, DeviceReader
from epd.transfer.handles import DeviceHandle, unpacked
from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing
from epd.transfer.runtime import Memory
from epd.transfer.ways import FRAMES, NIXL, SHARED, Route, Way, of_rank, route, sockets_of
from epd.types import Gpu, Member, Rank, Remote
from epd.wire.messages import Payload
from tests.transfer.ends import member, staged
from tests.transfer.gpu import FakeGpu, World

ARENA = 512
ROW = 128
NAMES = ("p", "q")


@dataclass
class Reader:
    """One process that reads. `got`: what it copied for itself, and what it should be."""

    name: str
    gpu: FakeGpu
    lives: bool = True
    epoch: int = 0
    got: list[tuple[torch.Tensor, int]] = field(default_factory=list)
    acks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = DeviceReader(self.gpu)

    @property
    def lease(self) -> str:
        return f"{self.name} {self.epoch}"


class Blind(FakeGpu):
    """Takes every GPU's memory for that of its own."""

    def open(self, device: str, num_bytes: int, memory: bytes, event: bytes) -> Memory:
        return replace(super().open(device, num_bytes, memory, event), device=self.device)


class House:
    """A sender and its readers: p on the same GPU, q on another. Values count up, so every tensor
    is another one."""

    def __init__(self, *, careful: bool = True, elsewhere: type[FakeGpu] = FakeGpu) -> None:
        self.world = World()
        self.gpu = FakeGpu(self.world)
        far = elsewhere(self.world, "GPU-1", reaches=("GPU-1", "GPU-0"))
        self.readers = {"p": Reader("p", FakeGpu(self.world)), "q": Reader("q", far)}
        self.dead: set[str] = set()
        held = self.dead.isdisjoint if careful else None
        self.arena = DeviceArena(
            self.gpu, ARENA, count(), lambda lease: held is not None and held({lease})
        )
        self.member = gpu_member(self.arena.handle)
        self.values = count(1)
        self.kept: list[tuple[torch.Tensor, int]] = []

    def keep(self) -> None:
        value = next(self.values) % 251
        kept = self.arena.keep(self.gpu.tensor(torch.full((ROW,), value, dtype=torch.uint8)))
        if kept is not None:
            self.kept.append((kept, value))

    def forget_kept(self) -> None:
        if self.kept:
            self.kept.pop(0)

    def send(self, reader: Reader, *, kept: bool) -> None:
        """Staged, taken and used, as rows are: all of it later."""
        if kept and self.kept:
            source, value = self.kept[-1]
        else:
            value = next(self.values) % 251
            source = self.gpu.tensor(torch.full((ROW,), value, dtype=torch.uint8))
        payload = self.arena.stage(source, dtype="uint8", to=reader.name, lease=reader.lease)
        if payload is None:
            return
        slot, acks = payload.slot, reader.acks
        seen, _ = reader.reader.take(self.member, payload, lambda: acks.append(slot))
        reader.got.append((reader.gpu.clone(seen), value))

    def acknowledge(self, reader: Reader) -> None:
        reader.reader.settle()
        while reader.acks:
            self.arena.give_back(reader.acks.pop(0), by=reader.name)

    def die(self, reader: Reader) -> None:
        """Its streams stop; another process takes its name."""
        reader.gpu.die()
        reader.got.clear()
        reader.acks.clear()
        self.dead.add(reader.lease)
        self.arena.peer_lost(reader.name)
        reader.epoch += 1
        reader.reader = DeviceReader(reader.gpu)

    def check(self) -> None:
        self.world.run_all()
        for reader in self.readers.values():
            for own, value in reader.got:
                assert own.tolist() == [value] * ROW, "bytes of another tensor"


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["send", "send", "send kept", "run", "run", "run", "ack", "doubt", "die", "keep", "end"]
        ),
        st.sampled_from(NAMES),
        st.integers(0, 5),
    ),
    max_size=80,
)


def play(house: House, actions: list[tuple[str, str, int]]) -> None:
    for action, name, number in actions:
        reader = house.readers[name]
        if action in ("send", "send kept"):
            house.send(reader, kept=action == "send kept")
        elif action == "run":
            house.world.streams[number % len(house.world.streams)].run()
        elif action == "ack":
            house.acknowledge(reader)
        elif action == "doubt":
            house.arena.peer_lost(name)
        elif action == "die":
            house.die(reader)
        elif action == "keep":
            house.keep()
        else:
            house.forget_kept()
    house.check()


@given(ACTIONS)
def test_no_byte_is_used_anew_before_its_reader_is_done(
    actions: list[tuple[str, str, int]],
) -> None:
    """In any order of staging, reading, ends, deaths and mistaken ones, and of the GPU's work."""
    house = House()
    play(house, actions)
    for _ in range(2):
        for reader in house.readers.values():
            house.acknowledge(reader)
        house.world.run_all()
    house.kept.clear()
    assert house.arena.in_use == 0
    house.keep()
    assert house.arena.kept_bytes == ROW, "every byte came back"


def fill_and_doubt(house: House) -> None:
    """The sender takes a slow reader for dead, and sends as much as there is room for."""
    slow, other = house.readers["p"], house.readers["q"]
    house.send(slow, kept=False)
    house.gpu.stream.run()
    house.arena.peer_lost("p")
    for _ in range(4):
        house.send(other, kept=False)
    while house.gpu.stream.run():
        pass
    house.check()


def test_a_reader_that_is_taken_for_dead_by_mistake_reads_what_it_was_sent() -> None:
    fill_and_doubt(House())


def test_without_a_lease_it_would_not() -> None:
    """The control: the same, but a doubt is enough."""
    with pytest.raises(AssertionError, match="bytes of another tensor"):
        fill_and_doubt(House(careful=False))


def read_early(house: House) -> None:
    """A reader elsewhere works as far as it can before the sender does anything."""
    reader = house.readers["q"]
    house.send(reader, kept=False)
    while any([stream.run() for stream in reader.gpu.streams.values()]):
        pass
    house.check()


def give_back_early(house: House) -> None:
    """The stream of a reader elsewhere is done before its work on the sender's GPU has begun."""
    reader = house.readers["q"]
    house.send(reader, kept=False)
    while any([stream.run() for stream in (house.gpu.stream, reader.gpu.stream)]):
        pass
    for _ in range(2):
        house.acknowledge(reader)
        while reader.gpu.stream.run():
            pass
    for _ in range(4):
        house.send(house.readers["p"], kept=False)
    while house.gpu.stream.run():
        pass
    house.check()


EARLY = pytest.mark.parametrize("early", [read_early, give_back_early])


@EARLY
def test_a_reader_on_another_gpu_reads_what_it_was_sent(early: Callable[[House], None]) -> None:
    early(House())


@EARLY
def test_in_the_stream_of_the_senders_gpu_it_would_not(early: Callable[[House], None]) -> None:
    """The control: a tensor of the sender's GPU is used there, where the reader's stream is not."""
    with pytest.raises(AssertionError, match="bytes of another tensor"):
        early(House(elsewhere=Blind))


def test_what_was_copied_from_another_gpu_is_not_copied_again() -> None:
    """It is lent no more, while what is read where it is has to be copied to be kept."""
    world = World()
    gpu = FakeGpu(world)
    outgoing = Outgoing(arena_bytes=0, runtime=gpu, device_bytes=1 << 12)
    near, far = Incoming(FakeGpu(world)), Incoming(FakeGpu(world, "GPU-1", ("GPU-1", "GPU-0")))
    for incoming, copies in ((near, True), (far, False)):
        sent = staged(outgoing.stage(gpu.tensor(torch.ones(8)), to="p", route=IPC))
        landed = incoming.take(gpu_member(outgoing.handle), sent.payload, None)
        world.run_all()
        assert (landed.copied().tensor.data_ptr() != landed.tensor.data_ptr()) is copies
        assert torch.equal(landed.copied().tensor, torch.ones(8))
        del landed
        incoming.close()
    outgoing.close()


def test_an_end_is_told_when_the_gpu_is_done_and_not_when_the_tensor_dies() -> None:
    house = House()
    reader = house.readers["p"]
    house.send(reader, kept=False)
    gc.collect()
    reader.reader.settle()
    assert reader.acks == [] and reader.reader.waits
    house.world.run_all()
    assert reader.acks == []
    reader.reader.settle()
    assert len(reader.acks) == 1 and not reader.reader.waits


def test_memory_is_let_go_of_when_nothing_reads_there() -> None:
    house = House()
    reader = house.readers["p"]
    house.send(reader, kept=False)
    reader.reader.forget(house.member.name)
    assert reader.gpu.closed == []
    reader.reader.settle()
    assert reader.gpu.closed == []
    house.world.run_all()
    reader.reader.settle()
    assert len(reader.gpu.closed) == 1


# ---- both ends as workers use them


def gpu_member(handle: bytes, *, device: str = "GPU-0", incarnation: str = "i1") -> Member:
    gpu = Gpu(device=device, reaches=(), lease="", handle=handle)
    given = member("", incarnation=incarnation)
    return Member(
        name=given.name,
        incarnation=incarnation,
        stages=(),
        control="",
        bulk="",
        host="h",
        pool="p",
        segment="epd-1",
        gpu=gpu,
    )


IPC = Route(Way.CUDA_IPC, "lease")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", [IPC, SHARED, FRAMES], ids=["cuda_ipc", "shared", "frames"])
@pytest.mark.parametrize("kept", [False, True], ids=["copied", "kept"])
def test_a_tensor_of_a_gpu_arrives_equal_every_way(
    way: Route, dtype: torch.dtype, *, kept: bool
) -> None:
    """And nothing is sent before its bytes have come."""
    world = World()
    gpu, theirs = FakeGpu(world), FakeGpu(world)
    outgoing = Outgoing(arena_bytes=1 << 14, runtime=gpu, device_bytes=1 << 14)
    incoming = Incoming(theirs)
    rows = torch.randn(6, 8).to(dtype)
    tensor = gpu.tensor(rows)
    if kept:
        tensor = outgoing.keep(tensor)
        assert outgoing.keeps(tensor, IPC) and not outgoing.keeps(tensor, SHARED)
    sent = staged(outgoing.stage(tensor[1:], to="p", route=way))
    if way is not IPC:
        assert not sent.ready
    world.run_all()
    assert sent.ready and sent.payload.device is (way is IPC) and sent.payload.kept <= kept
    source = gpu_member(outgoing.handle)
    if way is not IPC:
        source = member(outgoing.segment)
    landed = incoming.take(source, sent.payload, sent.frame)
    assert landed.tensor.dtype == dtype and torch.equal(landed.tensor, rows[1:])
    del landed
    if sent.payload.lent:
        outgoing.give_back(sent.payload.slot, by="p")
    assert outgoing.in_use == 0 and outgoing.ignored == 0
    incoming.close()
    outgoing.close()


def test_slots_of_both_arenas_have_different_numbers() -> None:
    gpu = FakeGpu(World())
    outgoing = Outgoing(arena_bytes=1 << 12, runtime=gpu, device_bytes=1 << 12)
    there = staged(outgoing.stage(gpu.tensor(torch.ones(8)), to="p", route=IPC)).payload.slot
    here = staged(outgoing.stage(torch.ones(8), to="p", route=SHARED)).payload.slot
    assert there != here
    outgoing.give_back(there, by="q")
    assert outgoing.ignored == 1
    for slot in (there, here):
        outgoing.give_back(slot, by="p")
    assert outgoing.in_use == 0 and outgoing.ignored == 1
    outgoing.close()


def test_what_is_taken_back_waits_for_its_bytes() -> None:
    world = World()
    gpu = FakeGpu(world)
    outgoing = Outgoing(arena_bytes=1 << 12, runtime=gpu)
    sent = staged(outgoing.stage(gpu.tensor(torch.ones(8)), to="p", route=SHARED))
    outgoing.take_back(sent, to="p")
    assert sent.ready and outgoing.in_use == 0
    outgoing.close()


# ---- what is refused

GOOD = DeviceHandle(ARENA, b"m" * 64, b"e" * 64).packed()


def test_a_handle_comes_back_as_it_went() -> None:
    assert unpacked(GOOD) == DeviceHandle(ARENA, b"m" * 64, b"e" * 64)


@pytest.mark.parametrize(
    "bad",
    [b"", GOOD[:-1], GOOD + b"x", b"x" + GOOD[1:], GOOD[:4] + b"\2" + GOOD[5:],
     GOOD[:5] + bytes(8) + GOOD[13:]],
    ids=["empty", "short", "long", "magic", "version", "no bytes"],
)  # fmt: skip
def test_bytes_that_are_no_handle_are_refused(bad: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpacked(bad)


@pytest.mark.parametrize(
    ("offset", "nbytes"), [(-1, 4), (ARENA - 3, 4), (0, ARENA + 4), (1 << 60, 4)]
)
def test_bytes_outside_of_the_memory_are_refused_and_the_sender_hears_of_it(
    offset: int, nbytes: int
) -> None:
    world = World()
    arena = DeviceArena(FakeGpu(world), ARENA, count())
    heard: list[int] = []
    payload = Payload(
        dtype="float32", shape=(nbytes // 4,), nbytes=nbytes, slot=0, offset=offset, device=True
    )
    incoming = Incoming(FakeGpu(world))
    with pytest.raises(ProtocolError):
        incoming.take(gpu_member(arena.handle), payload, None, lambda: heard.append(1))
    assert heard == [1]
    incoming.close()


def test_memory_that_was_not_agreed_on_is_refused() -> None:
    world = World()
    arena = DeviceArena(FakeGpu(world), ARENA, count())
    payload = Payload(dtype="float32", shape=(1,), nbytes=4, slot=0, device=True)
    elsewhere = Incoming(FakeGpu(world, "GPU-1"))
    for incoming, source in [
        (Incoming(), gpu_member(arena.handle)),
        (elsewhere, gpu_member(arena.handle)),
        (elsewhere, gpu_member(b"")),
        (elsewhere, member("epd-1")),
    ]:
        with pytest.raises(ProtocolError):
            incoming.take(source, payload, None)
    elsewhere.close()


# ---- what is agreed on


def seen(host: str, *, handle: bytes = b"", reaches: tuple[str, ...] = (), segment: str) -> Member:
    gpu = Gpu(device="GPU-0", reaches=reaches, lease="l", handle=handle)
    return Member(name="x", incarnation="1", stages=(), control="", bulk="", host=host, pool="",
                  segment=segment, gpu=gpu)  # fmt: skip


def test_the_way_follows_from_what_both_registered() -> None:
    lends, plain = seen("a", handle=GOOD, segment="s"), seen("a", segment="s")
    near, far = seen("a", reaches=("GPU-0",), segment=""), seen("b", reaches=("GPU-0",), segment="")
    blind = seen("a", reaches=("GPU-1",), segment="")
    assert route(lends, near) == Route(Way.CUDA_IPC, "l")
    assert route(lends, far) == FRAMES
    assert route(lends, blind) == route(plain, near) == SHARED
    assert route(seen("a", segment=""), near) == FRAMES


def test_ranks_hand_over_by_themselves_where_all_pairs_can_alike() -> None:
    """Each in memory of its own; otherwise everything goes through the first of them."""
    pair = Rank(segment="s1", gpu=Gpu(device="GPU-1", reaches=(), lease="", handle=GOOD))
    lends = replace(seen("a", handle=GOOD, segment="s"), ranks=(pair,))
    second = Rank(gpu=Gpu(device="GPU-1", reaches=("GPU-1",), lease="l1"))
    reads = replace(seen("a", reaches=("GPU-0",), segment=""), ranks=(second,))
    assert route(lends, reads) == Route(Way.CUDA_IPC, "l,l1", 2)
    assert of_rank(lends, 1).segment == "s1" and of_rank(lends, 0).segment == "s"
    blind = replace(reads, gpu=None, ranks=(Rank(),))
    assert route(lends, blind) == Route(Way.SHARED, "", 2)
    half = replace(reads, ranks=(Rank(),))
    assert route(lends, half) == Route(Way.CUDA_IPC, "l")
    for other in (replace(reads, ranks=()), replace(reads, ranks=(second, second))):
        assert route(lends, other) == Route(Way.CUDA_IPC, "l")
    assert route(lends, replace(reads, host="b")) == FRAMES


def test_ranks_of_other_hosts_hand_over_by_themselves_where_all_have_what_that_needs() -> None:
    """Sockets of their own for frames, agents of their own for NIXL."""
    memory = Remote(metadata=b"m", num_bytes=9)
    socket = Rank(name="x.1", incarnation="2", control="c", bulk="b")
    plain, far = seen("a", segment="s"), seen("b", segment="")
    near = replace(plain, ranks=(socket,))
    there = replace(far, ranks=(socket,))
    assert route(near, there) == Route(Way.FRAMES, ranks=2)
    assert sockets_of(near, 1).incarnation == "2" and of_rank(near, 1).incarnation == "1"
    for ranks in ((), (Rank(),), (socket, socket)):
        assert route(near, replace(far, ranks=ranks)) == FRAMES
        assert route(replace(plain, ranks=ranks), there) == FRAMES
    lends = replace(near, remote=memory, ranks=(replace(socket, remote=memory),))
    reads = replace(there, remote=Remote(metadata=b"n"))
    read_by = replace(socket, remote=Remote(metadata=b"o"))
    assert route(lends, replace(reads, ranks=(read_by,))) == Route(Way.NIXL, ranks=2)
    assert of_rank(lends, 1).remote == memory
    assert route(lends, reads) == NIXL  # only the first ranks have it


def test_a_slot_of_several_readers_is_free_when_none_of_them_may_live() -> None:
    """Each rank of a worker that was taken for dead reads the slot of its number."""
    world, alive = World(), {"l", "l1"}
    gpu = FakeGpu(world)
    arena = DeviceArena(gpu, ARENA, count(), lambda lease: lease in alive)
    assert arena.stage(gpu.tensor(torch.ones(8)), dtype="float32", to="p", lease="l,l1")
    arena.peer_lost("p")
    assert arena.in_use > 0
    alive.remove("l")
    assert arena.in_use > 0
    alive.remove("l1")
    assert arena.in_use == 0
