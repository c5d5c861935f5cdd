"""Sockets between ranks: each part to whom it is for, once, and nothing that was not asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from epd.config import Config, load_config
from epd.config.sections import WireConfig
from epd.engine.ranks.ends import Kind
from epd.errors import EpdError, InternalError, ProtocolError, Unavailable
from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing, Staged
from epd.transfer.ways import sockets_of
from epd.types import Member, Rank
from epd.wire.links import Delivery, PeerLost
from epd.wire.messages import KvPart
from epd.wire.zmq_links import ZmqLinks
from epd.workers.fetches import Fetch, Fetches, Peer
from epd.workers.introductions import introduced
from epd.workers.rank_links import RankLinks, rank_links
from tests.eventually import eventually

PART = torch.arange(24, dtype=torch.float32).view(2, 3, 4)


class Ranks:
    """Makes ranks that listen on one transport."""

    def __init__(self, listen: str) -> None:
        self._listen = listen
        self._made: list[RankLinks] = []

    def rank(self, name: str) -> RankLinks:
        found = RankLinks(partial(ZmqLinks, name, self._listen, WireConfig()))
        self._made.append(found)
        found.start()
        return found

    def close(self) -> None:
        for each in self._made:
            each.close()


@pytest.fixture(params=["ipc", "tcp"])
def ranks(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    with tempfile.TemporaryDirectory(prefix="epd-") as folder:
        made = Ranks(f"ipc://{folder}" if request.param == "ipc" else "tcp://127.0.0.1")
        yield made
        made.close()


def met(links: RankLinks) -> Member:
    """As others know it."""
    return sockets_of(introduced("w", links.facts), 1)


def part(tensor: torch.Tensor = PART) -> Staged:
    return Outgoing(arena_bytes=0).as_frame(tensor)


def outcome(links: RankLinks, name: str, number: int) -> memoryview:
    eventually(lambda: links.arrived(name, number), "an answer")
    return links.take(name, number)


def test_a_part_goes_to_who_asks_for_it_once(ranks: Ranks) -> None:
    sender, reader = ranks.rank("p.1"), ranks.rank("d.1")
    sender.keep(7, met(reader), part())
    reader.ask(met(sender), 7, part().payload)
    frame = outcome(reader, "p.1", 7)
    assert torch.equal(torch.frombuffer(bytearray(frame), dtype=torch.float32), PART.view(-1))
    assert sender.bytes_sent == PART.nbytes
    reader.ask(met(sender), 7, part().payload)
    with pytest.raises(Unavailable, match=r"p\.1 took its memory back"):
        outcome(reader, "p.1", 7)


def test_nobody_gets_what_is_for_another_or_for_his_predecessor(ranks: Ranks) -> None:
    """Names come again when a worker is restarted, incarnations do not."""
    sender, reader, other = ranks.rank("p.1"), ranks.rank("d.1"), ranks.rank("d2.1")
    sender.keep(1, met(other), part())
    sender.keep(2, replace(met(reader), incarnation="0" * 32), part())
    sender.keep(3, met(reader), part())
    sender.withdraw(3)
    for number in (1, 2, 3, 4):
        reader.ask(met(sender), number, part().payload)
    sender.keep(5, met(reader), part())  # before, who asks is a stranger
    for number in (1, 2, 3, 4):
        with pytest.raises(Unavailable, match="took its memory back"):
            outcome(reader, "p.1", number)
    assert sender.bytes_sent == 0 and set(sender._kept) == {1, 2, 5}
    sender.forget("d.1")
    assert set(sender._kept) == {1}


def test_a_part_of_another_size_is_an_error_and_never_bytes(ranks: Ranks) -> None:
    sender, reader = ranks.rank("p.1"), ranks.rank("d.1")
    wanted = part().payload
    for number, wrong in enumerate((PART[:1], PART.view(6, 4), PART.to(torch.float16))):
        sender.keep(number, met(reader), part(wrong.contiguous()))
        reader.ask(met(sender), number, wanted)
        with pytest.raises(ProtocolError, match="another part than asked for"):
            outcome(reader, "p.1", number)


def test_what_was_not_asked_for_is_ignored(ranks: Ranks) -> None:
    reader = ranks.rank("d.1")
    stray = KvPart(number=3, payload=part().payload)
    delivery = Delivery(sender="p.1", incarnation="i", message=stray, frame=part().frame)
    assert reader.put(delivery)
    assert reader.ignored == 1 and not reader._asked


def test_a_rank_that_goes_ends_what_was_asked_of_it_and_comes_back_under_its_name(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, reader = ranks.rank("p.1"), ranks.rank("d.1")
    heard: list[Any] = []
    with monkeypatch.context() as silent:
        silent.setattr(sender, "_answer", lambda *asked: heard.append(asked))
        sender.keep(1, met(reader), part())
        reader.ask(met(sender), 1, part().payload)
        eventually(lambda: heard, "the request")
    sender.close()
    with pytest.raises(Unavailable, match=r"p\.1: connection reset"):
        outcome(reader, "p.1", 1)
    again = ranks.rank("p.1")
    again.keep(1, met(reader), part())
    reader.forget("p.1")
    reader.ask(met(again), 1, part().payload)
    assert outcome(reader, "p.1", 1).nbytes == PART.nbytes


def test_a_rank_that_can_receive_nothing_says_so(ranks: Ranks) -> None:
    links = ranks.rank("d.1")
    links.check()
    links.put(PeerLost(name="d.1", incarnation="i", reason="the I/O thread failed"))
    with pytest.raises(InternalError, match="the I/O thread failed"):
        links.check()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def fetch(task: int, source: Peer | None, slot: int) -> Fetch:
    return Fetch(task, source, Kind.SOCKET, slot, part().payload)


def ended(fetches: Fetches, *tasks: int) -> Callable[[], bool]:
    found: set[int] = set()

    def all_of_them() -> bool:
        found.update(fetches.settle())
        return found == set(tasks)

    return all_of_them


def test_parts_of_a_silent_peer_end_and_those_of_a_slow_one_do_not(ranks: Ranks) -> None:
    """Patience begins anew with each part that comes."""
    sender, reader, clock = ranks.rank("p.1"), ranks.rank("d.1"), Clock()
    fetches = Fetches(Incoming(), reader, 5.0, clock)
    source = Peer(introduced("p", Rank()), met(sender))
    for number in (1, 2):
        sender.keep(number, met(reader), part())
    fetches.begin(0, fetch(11, source, 1))
    clock.now = 4.0
    fetches.begin(0, fetch(13, source, 3))
    eventually(ended(fetches, 11, 13), "an answer to both")  # 3 is not there: an error at once
    assert fetches.take(0, 1) is not None
    sender._answer = lambda *asked: None  # type: ignore[method-assign]
    fetches.begin(0, fetch(12, source, 2))
    clock.now = 9.0
    assert list(fetches.settle()) == [] and fetches.waits
    clock.now = 9.1
    assert list(fetches.settle()) == [12] and not fetches.waits
    with pytest.raises(Unavailable, match=r"nothing came from p for 5\.1 s"):
        fetches.take(0, 2)
    with pytest.raises(Unavailable, match="took its memory back"):
        fetches.take(0, 3)
    assert not reader._asked


def test_what_cannot_be_fetched_is_answered_and_taken_as_an_error() -> None:
    fetches = Fetches(Incoming(), None, 5.0, Clock())
    fetches.begin(0, fetch(1, None, 1))
    fetches.begin(0, fetch(2, Peer(introduced("p", Rank()), None), 2))
    assert sorted(fetches.settle()) == [1, 2]
    for slot in (1, 2, 3):
        with pytest.raises(ProtocolError):
            fetches.take(0, slot)


def test_a_peer_that_is_gone_leaves_no_task_open(ranks: Ranks) -> None:
    sender, reader = ranks.rank("p.1"), ranks.rank("d.1")
    fetches = Fetches(Incoming(), reader, 5.0, Clock())
    source = Peer(introduced("p", Rank()), met(sender))
    for number in (1, 2):
        fetches.begin(0, fetch(number, source, number))
    assert list(fetches.forget(0)) == [1, 2]
    assert not fetches.waits and not reader._asked


@pytest.mark.parametrize(
    ("role", "listen", "has"),
    [
        ("prefill", "tcp://127.0.0.1", True),
        ("decode", "tcp://127.0.0.1:39170-39199", True),
        ("decode", "tcp://127.0.0.1:39170-39171", False),
        ("fused", "tcp://127.0.0.1", False),
    ],
)
def test_ranks_have_sockets_where_they_hand_over_and_there_are_ports(
    role: str, listen: str, has: bool
) -> None:
    config: Config = load_config(None, [f"placement.{role}.tp=2", f"listen={listen}", "name=w-0"])
    found = rank_links(role, config, 1)
    assert (found is not None) is has
    if found is not None:
        assert found.facts.name.startswith("w-0.1.") and found.facts.bulk.startswith("tcp://")
        found.close()


def test_sockets_of_ranks_leave_the_machine_only_with_keys_as_all_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from epd.wire import zmq_links

    monkeypatch.setattr(zmq_links, "parse_listen", lambda _: SimpleNamespace(leaves_host=True))
    config = load_config(None, ["placement.decode.tp=2", "listen=tcp://127.0.0.1"])
    with pytest.raises(EpdError, match=r"set wire\.curve_dir"):
        rank_links("decode", config, 1)
