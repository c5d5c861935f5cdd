"""What goes to a device and comes back: right in whatever order its streams work, never late."""

from __future__ import annotations

import pytest
import torch

from epd.attention import staging
from epd.attention.staging import CudaStaging, HostStaging, staging_for
from tests.attention.card import Card
from tests.transfer.gpu import Event

CUDA = torch.device("cuda")
PARTS = (
    torch.tensor([3, 1, 4]),
    torch.tensor([], dtype=torch.int64),
    torch.tensor([0.1, 1e-9], dtype=torch.float64),
    torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int32),
    torch.arange(12).view(3, 4)[:, 1:3],
    torch.tensor([True, False, True]),
)


def made(card: Card, monkeypatch: pytest.MonkeyPatch) -> CudaStaging:
    monkeypatch.setattr(staging, "_cuda", card)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *told: card.record_stream(*told))
    return CudaStaging(CUDA)


def test_parts_of_any_kind_arrive_before_work_on_them_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The step's stream works as far as it can before anything is copied."""
    card = Card()
    sends = made(card, monkeypatch)
    with card:
        sent = sends.send(PARTS)
    seen: list[torch.Tensor] = []
    card.ours.todo.append(lambda: seen.extend(part.clone() for part in sent))
    while card.ours.run():
        pass
    assert not seen
    card.world.run_all()
    for part, want in zip(seen, PARTS, strict=True):
        assert part.dtype == want.dtype and torch.equal(part, want)
    assert all(part.data_ptr() % 16 == sent[0].data_ptr() % 16 for part in sent if part.numel())


def test_memory_is_lent_anew_only_when_the_other_stream_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch knows that of the stream that asked for it; it is told of the other one."""
    card = Card()
    both = made(card, monkeypatch)
    values = torch.ones(2)
    with card:
        sent = both.send(PARTS)
        assert card.used == [(sent[0].data_ptr(), card.ours)]
        both.fetch(values)
    (_, reads) = card.used.pop()
    assert reads is not card.ours


def test_what_comes_back_is_what_the_step_made(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()
    reads = made(card, monkeypatch)
    values = torch.zeros(3)
    card.ours.todo.append(lambda: values.__setitem__(slice(None), torch.tensor([7.0, 8, 9])))
    with card:
        coming = reads.fetch(values)
    assert coming.read().tolist() == [7, 8, 9]


def sent_behind_a_step(card: Card, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the next step's parts are there while this one, which is read, still computes."""
    both = made(card, monkeypatch)
    card.ours.todo.append(Event(card.world))  # which does not happen
    with card:
        both.fetch(torch.zeros(3))
        sent = both.send(PARTS)
    card.world.run_all()
    return torch.equal(sent[0], PARTS[0])


def test_the_next_step_is_sent_while_this_one_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sent_behind_a_step(Card(), monkeypatch)


def test_on_one_stream_it_would_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    assert not sent_behind_a_step(Card(streams=1), monkeypatch)


def test_where_the_device_is_the_host_nothing_moves() -> None:
    here = staging_for(torch.device("cpu"))
    assert isinstance(here, HostStaging) and here is staging_for(torch.device("cpu"))
    assert all(a is b for a, b in zip(here.send(PARTS), PARTS, strict=True))
    assert here.fetch(PARTS[0]).read() is PARTS[0]
