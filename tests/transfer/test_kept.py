"""Tensors that stay in shared memory: read where they are, free when they die."""

from __future__ import annotations

import dataclasses
import gc
import threading

import pytest
import torch

from epd.errors import ProtocolError, Unavailable
from epd.transfer.incoming import Incoming
from epd.transfer.lending import KEPT_SHARE
from epd.transfer.outgoing import Outgoing
from epd.transfer.ways import FRAMES, SHARED
from tests.transfer.conftest import ARENA_BYTES
from tests.transfer.ends import member, staged


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_part_of_it_is_read_without_another_copy_here(
    outgoing: Outgoing, incoming: Incoming, dtype: torch.dtype
) -> None:
    rows = torch.randn(12, 5).to(dtype)
    kept = outgoing.keep(rows)
    assert torch.equal(kept, rows) and kept.data_ptr() != rows.data_ptr()
    assert outgoing.keeps(kept, SHARED) and not outgoing.keeps(rows, SHARED)
    for first, num in ((0, 12), (3, 4), (11, 1)):
        sent = staged(outgoing.stage(kept.narrow(0, first, num), to="p", route=SHARED))
        assert sent.payload.kept and outgoing.in_use == 0
        came = incoming.take(member(outgoing.segment), sent.payload, sent.frame)
        assert torch.equal(came.tensor, rows[first : first + num])


def test_for_another_host_it_is_a_frame(outgoing: Outgoing, incoming: Incoming) -> None:
    kept = outgoing.keep(torch.ones(4, 4))
    sent = staged(outgoing.stage(kept, to="p", route=FRAMES))
    assert sent.payload.slot < 0
    assert torch.equal(incoming.take(member(""), sent.payload, sent.frame).tensor, torch.ones(4, 4))


def test_its_memory_is_free_when_the_last_view_of_it_is_gone(outgoing: Outgoing) -> None:
    kept = outgoing.keep(torch.ones(8, 8))
    used = outgoing.kept_bytes
    view = kept[2:]
    del kept
    gc.collect()
    assert outgoing.in_use == 0 and outgoing.kept_bytes == used
    thread = threading.Thread(target=lambda tensors=[view]: tensors.clear())
    del view
    thread.start()
    thread.join()
    del thread
    gc.collect()
    assert outgoing.in_use == 0 and outgoing.kept_bytes == 0


def test_one_that_is_gone_is_no_tensor_to_a_late_reader(
    outgoing: Outgoing, incoming: Incoming
) -> None:
    kept = outgoing.keep(torch.ones(8, 8))
    sent = staged(outgoing.stage(kept, to="p", route=SHARED))
    outgoing.peer_lost("p")
    del kept
    gc.collect()
    other = outgoing.keep(torch.zeros(8, 8))
    assert outgoing.keeps(other, SHARED)
    with pytest.raises(Unavailable, match="took its memory back"):
        incoming.take(member(outgoing.segment), sent.payload, None)


def test_a_death_of_a_reader_or_a_give_back_frees_nothing(outgoing: Outgoing) -> None:
    kept = outgoing.keep(torch.ones(8, 8))
    sent = staged(outgoing.stage(kept, to="p", route=SHARED))
    outgoing.peer_lost("p")
    outgoing.give_back(sent.payload.slot, by="p")
    assert outgoing.ignored == 1 and torch.equal(kept, torch.ones(8, 8))
    assert outgoing.keeps(kept, SHARED)


@pytest.mark.parametrize("end", ["given back", "lost"])
def test_who_reads_it_may_go_on_when_its_tensors_are_gone(
    outgoing: Outgoing, incoming: Incoming, end: str
) -> None:
    """Every reader, each as often as it was told of the bytes."""
    kept = outgoing.keep(torch.ones(8, 8))
    told = [staged(outgoing.stage(kept, to=to, route=SHARED)) for to in ("p", "p", "q")]
    slot = told[0].payload.slot
    landed = incoming.take(member(outgoing.segment), told[0].payload, None)
    del kept
    gc.collect()
    other = outgoing.keep(torch.zeros(8, 8))
    assert outgoing.keeps(other, SHARED)
    outgoing.give_back(slot, by="p")
    outgoing.give_back(slot, by="q")
    outgoing.give_back(slot, by="q")
    assert outgoing.ignored == 1
    landed.check()
    assert torch.equal(landed.tensor, torch.ones(8, 8))
    if end == "lost":
        outgoing.peer_lost("p")
    else:
        outgoing.give_back(slot, by="p")
    del other
    gc.collect()
    assert outgoing.in_use == 0 and outgoing.kept_bytes == 0
    with pytest.raises(Unavailable):
        landed.check()


def test_what_is_kept_leaves_room_for_copies(outgoing: Outgoing) -> None:
    """Beyond its share of the arena rows stay elsewhere, and are staged when somebody asks."""
    most = torch.zeros(ARENA_BYTES // KEPT_SHARE // 4 - 64)
    kept = [outgoing.keep(most) for _ in range(2)]
    assert [outgoing.keeps(each, SHARED) for each in kept] == [True, False]
    assert outgoing.kept_bytes <= ARENA_BYTES // KEPT_SHARE
    sent = staged(outgoing.stage(kept[-1], to="p", route=SHARED))
    assert sent.payload.lent and not sent.payload.kept


def test_tensors_may_outlive_the_arena() -> None:
    outgoing = Outgoing(arena_bytes=ARENA_BYTES)
    kept = outgoing.keep(torch.ones(8, 8))
    outgoing.close()
    assert torch.equal(kept, torch.ones(8, 8))


def test_a_stamp_outside_of_the_segment_is_refused(outgoing: Outgoing, incoming: Incoming) -> None:
    kept = outgoing.keep(torch.ones(8, 8))
    payload = staged(outgoing.stage(kept, to="p", route=SHARED)).payload
    for wrong in (payload.offset, 1 << 40):
        with pytest.raises(ProtocolError):
            incoming.take(
                member(outgoing.segment), dataclasses.replace(payload, kept_at=wrong), None
            )
