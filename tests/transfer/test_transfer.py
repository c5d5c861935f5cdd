"""Tensors through shared memory and through frames: equal, owned, checked, given back."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from epd.errors import ConfigError, ProtocolError, Unavailable
from epd.transfer import segments
from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing
from epd.transfer.segments import STAMP_BYTES
from epd.transfer.ways import FRAMES, SHARED, Route
from epd.wire.messages import Payload
from tests.transfer.ends import member, staged

SHM = Path("/dev/shm")
SMALL = 64 + STAMP_BYTES
"""What 16 floats take of an arena."""


@pytest.mark.parametrize("route", [SHARED, FRAMES], ids=["shared memory", "frame"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5), (2, 1, 4, 2, 8), (7,), (), (0, 4)], ids=str)
def test_a_tensor_arrives_equal_and_its_bytes_are_copied_for_shared_memory_alone(
    outgoing: Outgoing,
    incoming: Incoming,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    *,
    route: Route,
) -> None:
    tensor = torch.randn(shape).to(dtype)
    sent = staged(outgoing.stage(tensor, to="p", route=route))
    expected = tensor.clone()
    if sent.payload.slot >= 0:
        tensor.zero_()  # the copy was made when it was staged
    landed = incoming.take(member(outgoing.segment), sent.payload, sent.frame)
    came = landed.tensor
    if tensor.numel():
        assert (came.data_ptr() == tensor.data_ptr()) is not (route is SHARED)
    assert came.dtype == dtype and torch.equal(came, expected)
    if sent.payload.slot >= 0:
        copy = landed.copied()
        outgoing.give_back(sent.payload.slot, by="p")
        staged(outgoing.stage(torch.ones(64), to="p", route=SHARED))
        assert torch.equal(copy.tensor, expected), "the receiver's copy is its own"
        copy.check()


def test_a_strided_tensor_is_sent_row_major(outgoing: Outgoing, incoming: Incoming) -> None:
    tensor = torch.arange(24.0).view(4, 6).t()[1:]
    for route in (SHARED, FRAMES):
        sent = staged(outgoing.stage(tensor, to="p", route=route))
        came = incoming.take(member(outgoing.segment), sent.payload, sent.frame).tensor
        assert torch.equal(came, tensor) and came.is_contiguous()


def test_a_full_arena_says_so_until_something_is_given_back(outgoing: Outgoing) -> None:
    half = torch.zeros((1 << 13) - STAMP_BYTES // 4)  # with its stamp 32 KiB
    first = staged(outgoing.stage(half, to="p", route=SHARED))
    staged(outgoing.stage(half, to="q", route=SHARED))
    assert outgoing.stage(half, to="p", route=SHARED) is None
    assert outgoing.in_use == 1 << 16
    outgoing.give_back(first.payload.slot, by="p")
    assert outgoing.stage(half, to="p", route=SHARED) is not None


def test_what_the_arena_can_never_hold_goes_as_a_frame(outgoing: Outgoing) -> None:
    sent = staged(outgoing.stage(torch.zeros(1 << 15), to="p", route=SHARED))
    assert sent.payload.slot < 0 and sent.frame is not None


def test_only_the_borrower_gives_back(outgoing: Outgoing) -> None:
    sent = staged(outgoing.stage(torch.zeros(16), to="p", route=SHARED))
    outgoing.give_back(sent.payload.slot, by="q")
    outgoing.give_back(12345, by="p")
    assert (outgoing.ignored, outgoing.in_use) == (2, SMALL)
    outgoing.give_back(sent.payload.slot, by="p")
    outgoing.give_back(sent.payload.slot, by="p")
    assert (outgoing.ignored, outgoing.in_use) == (3, 0)


def test_a_dead_peers_slots_are_free_and_others_are_not(outgoing: Outgoing) -> None:
    staged(outgoing.stage(torch.zeros(16), to="p", route=SHARED))
    staged(outgoing.stage(torch.zeros(32), to="q", route=SHARED))
    outgoing.peer_lost("p")
    assert outgoing.in_use == SMALL + 64


@pytest.mark.parametrize("reused", [True, False])
def test_memory_that_its_owner_took_back_is_no_tensor(
    outgoing: Outgoing, incoming: Incoming, *, reused: bool
) -> None:
    """The owner took the reader for dead by mistake, and may have written over it."""
    sent = staged(outgoing.stage(torch.ones(16), to="p", route=SHARED))
    landed = incoming.take(member(outgoing.segment), sent.payload, None)
    landed.check()
    outgoing.peer_lost("p")
    if reused:
        other = staged(outgoing.stage(torch.zeros(16), to="q", route=SHARED))
        assert other.payload.offset == sent.payload.offset
    for use in (landed.check, landed.copied):
        with pytest.raises(Unavailable, match="encode-0 took its memory back"):
            use()
    with pytest.raises(Unavailable, match="encode-0 took its memory back"):
        incoming.take(member(outgoing.segment), sent.payload, None)


@pytest.mark.parametrize("route", [SHARED, FRAMES], ids=["shared memory", "frame"])
def test_the_sender_hears_once_when_nobody_reads_any_more(
    outgoing: Outgoing, incoming: Incoming, *, route: Route
) -> None:
    """Also where a view is all that is left, where the reader forgot the sender, and an error."""
    heard: list[int] = []
    sent = staged(outgoing.stage(torch.ones(4, 4), to="p", route=route))
    source = member(outgoing.segment)
    landed = incoming.take(source, sent.payload, sent.frame, partial(heard.append, 1))
    view = landed.tensor[2:]
    del landed
    incoming.forget(source.name)
    gc.collect()
    assert not heard and torch.equal(view, torch.ones(2, 4))
    del view
    gc.collect()
    assert heard == [1]
    wrong = dataclasses.replace(sent.payload, nbytes=3)
    with pytest.raises(ProtocolError):
        incoming.take(source, wrong, sent.frame, partial(heard.append, 2))
    gc.collect()
    assert heard == [1, 2]


def test_a_slot_is_not_read_as_another(outgoing: Outgoing, incoming: Incoming) -> None:
    """Whatever the message says."""
    sent = staged(outgoing.stage(torch.ones(16), to="p", route=SHARED))
    wrong = dataclasses.replace(sent.payload, slot=sent.payload.slot + 1)
    with pytest.raises(Unavailable):
        incoming.take(member(outgoing.segment), wrong, None)


def test_without_an_arena_everything_is_a_frame(incoming: Incoming) -> None:
    outgoing = Outgoing(arena_bytes=0)
    sent = staged(outgoing.stage(torch.ones(3), to="p", route=SHARED))
    assert outgoing.segment == "" and sent.payload.slot < 0
    assert torch.equal(incoming.take(member(""), sent.payload, sent.frame).tensor, torch.ones(3))
    outgoing.close()


def test_a_new_incarnations_segment_replaces_the_old_one(incoming: Incoming) -> None:
    for incarnation, value in (("i1", 1.0), ("i2", 2.0)):
        outgoing = Outgoing(arena_bytes=4096)
        sent = staged(outgoing.stage(torch.full((4,), value), to="p", route=SHARED))
        source = member(outgoing.segment, incarnation=incarnation)
        assert incoming.take(source, sent.payload, None).tensor.tolist() == [value] * 4
        outgoing.close()


GOOD = Payload(dtype="float32", shape=(4,), nbytes=16, slot=0, offset=0)


@pytest.mark.parametrize(
    "payload",
    [
        dataclasses.replace(GOOD, dtype="int64"),
        dataclasses.replace(GOOD, dtype="__class__"),
        dataclasses.replace(GOOD, shape=(5,)),
        dataclasses.replace(GOOD, nbytes=12),
        dataclasses.replace(GOOD, shape=(-2, -2)),
        dataclasses.replace(GOOD, shape=(4, *[1] * 8)),
        dataclasses.replace(GOOD, offset=-4),
        dataclasses.replace(GOOD, offset=(1 << 16) - 8),
        dataclasses.replace(GOOD, offset=1 << 62),
        dataclasses.replace(GOOD, shape=(1 << 40,), nbytes=1 << 42),
        dataclasses.replace(GOOD, slot=-1),
    ],
    ids=str,
)
def test_a_payload_that_does_not_fit_is_refused(
    outgoing: Outgoing, incoming: Incoming, payload: Payload
) -> None:
    staged(outgoing.stage(torch.zeros(4), to="p", route=SHARED))
    with pytest.raises(ProtocolError):
        incoming.take(member(outgoing.segment), payload, None)


@pytest.mark.parametrize("frame", [None, b"", bytes(15), bytes(17)])
def test_a_frame_of_another_length_is_refused(incoming: Incoming, frame: bytes | None) -> None:
    view = None if frame is None else memoryview(frame)
    with pytest.raises(ProtocolError):
        incoming.take(member(""), dataclasses.replace(GOOD, slot=-1), view)


def test_a_slot_with_a_frame_is_refused(outgoing: Outgoing, incoming: Incoming) -> None:
    with pytest.raises(ProtocolError):
        incoming.take(member(outgoing.segment), GOOD, memoryview(bytes(16)))


@pytest.mark.parametrize("name", ["", "epd-1", "../etc/passwd", "epd-" + "0" * 32, "sem.x"])
def test_only_segments_that_we_issue_are_opened(incoming: Incoming, name: str) -> None:
    with pytest.raises(ProtocolError, match="segment"):
        incoming.take(member(name), GOOD, None)


def test_a_link_in_a_segments_place_is_refused(incoming: Incoming, tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_bytes(bytes(4096))
    link = SHM / ("epd-" + "a" * 32)
    link.symlink_to(target)
    try:
        with pytest.raises(ProtocolError, match="segment"):
            incoming.take(member(link.name), GOOD, None)
    finally:
        link.unlink()


def test_a_segment_that_shrinks_is_an_error_and_no_crash(incoming: Incoming) -> None:
    outgoing = Outgoing(arena_bytes=1 << 16)
    sent = staged(outgoing.stage(torch.zeros(4), to="p", route=SHARED))
    incoming.take(member(outgoing.segment), sent.payload, None)
    os.truncate(SHM / outgoing.segment, 8)
    with pytest.raises(ProtocolError, match="shorter"):
        incoming.take(member(outgoing.segment), sent.payload, None)
    outgoing.close()


def test_closing_leaves_no_file() -> None:
    outgoing = Outgoing(arena_bytes=4096)
    path = SHM / outgoing.segment
    assert path.stat().st_mode & 0o777 == 0o600
    outgoing.close()
    outgoing.close()
    assert not path.exists()


def test_a_killed_owners_segment_is_reclaimed_and_a_living_ones_is_not(outgoing: Outgoing) -> None:
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from epd.transfer import segments; import signal;"
            "print(segments.create(4096)[0], flush=True); signal.pause()",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        path = SHM / owner.stdout.readline().strip()
        segments.reclaim_dead()
        assert path.exists(), "its owner lives"
        owner.send_signal(signal.SIGKILL)
    assert path.exists()
    assert segments.reclaim_dead() >= 1
    assert not path.exists()
    assert (SHM / outgoing.segment).exists()


def test_more_than_there_is_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="shm_bytes"):
        Outgoing(arena_bytes=1 << 50)


def test_a_dtype_that_does_not_travel_is_refused_at_the_sender(outgoing: Outgoing) -> None:
    with pytest.raises(ProtocolError, match="int64"):
        outgoing.stage(torch.zeros(4, dtype=torch.int64), to="p", route=SHARED)
    assert outgoing.in_use == 0


def test_processes_of_one_host_have_one_host_id() -> None:
    code = "from epd.transfer import segments; print(segments.host_id())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other == segments.host_id()
