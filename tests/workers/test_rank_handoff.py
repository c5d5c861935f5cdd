"""KV between workers of two ranks each: every rank hands over its own heads, safely."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from epd.config.sections import WireConfig
from epd.engine.ranks.orders import Take
from epd.models.language import load_language
from epd.models.spec import Checkpoint, read_checkpoint
from epd.transfer.incoming import Incoming
from epd.transfer.nixl import RemoteReader
from epd.transfer.outgoing import Outgoing
from epd.transfer.segments import STAMP_BYTES
from epd.transfer.ways import Way
from epd.types import Remote, RequestKey
from epd.wire import messages as m
from epd.wire.zmq_links import ZmqLinks
from epd.workers.rank_ends import RankEnds, Tell
from epd.workers.rank_links import RankLinks
from tests.checkpoints import build
from tests.engine.crew import led_model
from tests.engine.tiny import greedy, make_case
from tests.eventually import eventually
from tests.transfer.network import FakeAgent, Network, Piece
from tests.workers.stage import Stage

torch.set_num_threads(1)

ARENA = 1 << 16
TEXT = make_case(5, texts=(70,), grids=())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return read_checkpoint(build("qwen2_5_vl", tmp_path_factory.mktemp("ranks") / "tiny"))


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint) -> list[int]:
    """What one rank of each says."""
    whole = load_language(checkpoint, device="cpu", dtype="float32")
    stage = Stage(models={"prefill": whole, "decode": whole})
    key = stage.ask(TEXT, greedy(8))
    stage.run()
    stage.close()
    return stage.tokens(key)


class Prompt(Network):
    """Reads happen as soon as they are asked for."""

    def add(self, piece: Piece) -> None:
        piece.happen()


class Ends:
    """Of one worker's rank 1, and what it has: an arena, sockets, or an agent of the network."""

    def __init__(self, way: Way, role: str, folder: Path, network: Prompt, *, arena: int) -> None:
        sends = role == "prefill"
        agent = FakeAgent(network) if way is Way.NIXL else None
        size = arena if sends and way is not Way.FRAMES else 0
        self.links = None
        if way is Way.FRAMES:
            config = WireConfig()
            self.links = RankLinks(partial(ZmqLinks, f"{role}.1", f"ipc://{folder}", config))
            self.links.start()
        self.outgoing = Outgoing(arena_bytes=size, agent=agent if sends else None)
        self.incoming = Incoming(reader=RemoteReader(agent, 1 << 20) if agent else None)

    def make(self, rank: int, tell: Tell) -> RankEnds:
        self.ends = RankEnds(
            rank,
            tell,
            outgoing=self.outgoing,
            incoming=self.incoming,
            links=self.links,
            patience_s=1.0,
        )
        return self.ends

    @property
    def holds(self) -> bool:
        """Anything for anybody."""
        kept = self.links is not None and bool(self.links._kept or self.links._asked)
        return kept or bool(self.ends._fetches._all) or self.ends.waits

    def close(self) -> None:
        self.incoming.close()
        self.outgoing.close()
        if self.links is not None:
            self.links.close()


class Pair(Stage):
    """Two ranks of prefill, two of decode."""

    def __init__(
        self,
        models: dict[str, Any],
        prefill: Ends,
        decode: Ends,
        way: Way,
        network: Prompt,
        arena: int,
    ) -> None:
        agent = FakeAgent(network) if way is Way.NIXL else None
        outgoing = Outgoing(arena_bytes=0 if way is Way.FRAMES else arena, agent=agent)
        reader = RemoteReader(agent, 1 << 20) if agent else None
        self.second, self.other = prefill, decode
        facts: dict[str, dict[str, Any]] = {
            "prefill": {
                "segment": outgoing.segment,
                "remote": outgoing.remote,
                "ranks": (prefill.ends.facts,),
            },
            "decode": {
                "host": "far" if agent else "",
                "remote": Remote(metadata=agent.metadata) if agent else None,
                "ranks": (decode.ends.facts,),
            },
        }
        super().__init__(
            models=models, facts=facts, outgoing=outgoing, incoming=Incoming(None, reader)
        )

    def chunks(self) -> list[m.KvChunk]:
        return [message for _, _, message, _ in self.mail if isinstance(message, m.KvChunk)]

    def until_a_chunk_is_under_way(self) -> m.KvChunk:
        while not self.chunks():
            if self.mail:
                self._deliver(*self.mail.popleft())
            else:
                self.prefill.step()
        return self.chunks()[0]

    def check_nothing_held(self) -> None:
        super().check_nothing_held()
        eventually(lambda: not (self.second.holds or self.other.holds), "orders are done")


WAYS = (Way.SHARED, Way.FRAMES, Way.NIXL)


@pytest.fixture
def pair(checkpoint: Checkpoint) -> Iterator[Pair]:
    """Ranks that share memory."""
    with made(checkpoint) as found:
        yield found
        found.check_nothing_held()
        assert found.outgoing.in_use == found.outgoing.ignored == 0


@pytest.fixture
def apart(checkpoint: Checkpoint) -> Iterator[Pair]:
    """Ranks that have sockets."""
    with made(checkpoint, Way.FRAMES) as found:
        yield found


@contextmanager
def made(checkpoint: Checkpoint, way: Way = Way.SHARED, arena: int = ARENA) -> Iterator[Pair]:
    network = Prompt()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="epd-")))
        ends = {
            role: Ends(way, role, folder, network, arena=arena) for role in ("prefill", "decode")
        }
        for each in ends.values():
            stack.callback(each.close)
        models = {
            role: stack.enter_context(led_model(checkpoint, 2, each.make))
            for role, each in ends.items()
        }
        found = Pair(models, ends["prefill"], ends["decode"], way, network, arena)
        stack.callback(found.close)
        yield found


@pytest.mark.parametrize("way", WAYS)
def test_each_rank_hands_over_its_own_heads(
    checkpoint: Checkpoint, way: Way, expected: list[int]
) -> None:
    """In several chunks; of the first ranks' frames none has more than their own heads."""
    with made(checkpoint, way) as pair:
        key = pair.ask(TEXT, greedy(8))
        first = pair.until_a_chunk_is_under_way()
        assert first.payload.ranks == 2 and first.payload.shape[3] == 1  # of two heads
        (frame,) = [frame for *_, message, frame in pair.mail if message is first]
        assert (frame is not None) is (way is Way.FRAMES)
        pair.run()
        assert pair.tokens(key) == expected and len(expected) == 8
        assert pair.kv_bytes_sent == 70 * 2 * 4 * 2 * 16 * 4
        assert pair.other.ends.bytes_taken == pair.kv_bytes_sent // 2
        sent = pair.second.ends.bytes_sent
        assert sent == (pair.kv_bytes_sent // 2 if way is Way.FRAMES else 0)
        pair.check_nothing_held()
        assert pair.outgoing.in_use == pair.outgoing.ignored == 0


@pytest.mark.parametrize("way", WAYS)
def test_what_the_second_rank_has_counts(
    checkpoint: Checkpoint, way: Way, expected: list[int]
) -> None:
    """Negative control: with other bytes there the answer is another."""
    with made(checkpoint, way) as pair:
        key = pair.ask(TEXT, greedy(8))
        pair.until_a_chunk_is_under_way()
        for chunk in pair.chunks():
            bytes_of(pair.second, chunk)[:] = 0
        pair.run()
        assert pair.tokens(key) != expected


def bytes_of(ends: Ends, chunk: m.KvChunk) -> torch.Tensor:
    """What a rank of prefill lends of it."""
    if ends.links is None:
        at = chunk.payload.offset
        return ends.outgoing._bytes[at : at + chunk.payload.nbytes]
    frame = ends.links._kept[chunk.payload.parts].part.frame
    return torch.frombuffer(frame, dtype=torch.uint8)


def the_failure(pair: Pair, key: RequestKey) -> m.RequestFailed:
    """Of its only request, of which nothing is held then."""
    [failed] = pair.answers(m.RequestFailed)
    assert failed.request == key
    pair.say("prefill", m.Cancel(request=key))
    pair.run()
    pair.check_nothing_held()
    found: m.RequestFailed = failed
    return found


def test_a_part_that_was_withdrawn_fails_the_request_and_names_the_rank(apart: Pair) -> None:
    """Rank 0 of prefill has taken decode for dead: nothing is kept for it any more."""
    key = apart.ask(TEXT, greedy(8))
    chunk = apart.until_a_chunk_is_under_way()
    apart.second.ends.withdraw(chunk.payload.parts)
    apart.run()
    failed = the_failure(apart, key)
    assert (failed.status, failed.reason) == (503, "rank 1: prefill.1 took its memory back")


def test_a_connection_between_ranks_that_breaks_fails_the_request_and_says_why(
    apart: Pair,
) -> None:
    key = apart.ask(TEXT, greedy(8))
    apart.until_a_chunk_is_under_way()
    links = apart.second.links
    assert links is not None
    links.close()
    apart.run()
    failed = the_failure(apart, key)
    assert failed.status == 503 and failed.reason.startswith("rank 1: ")


def test_a_rank_that_says_nothing_fails_the_request_and_the_next_one_is_served(
    apart: Pair, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stands; what was asked of it does not come."""
    links = apart.second.links
    assert links is not None
    with monkeypatch.context() as silent:
        silent.setattr(links, "_answer", lambda event, number: None)
        key = apart.ask(TEXT, greedy(8))
        apart.run()
    failed = the_failure(apart, key)
    assert failed.status == 503
    assert failed.reason.startswith("rank 1: nothing came from prefill for 1.")
    assert apart.tokens(apart.ask(TEXT, greedy(8))) == []
    apart.run()
    key = RequestKey("q2", 1)
    assert apart.tokens(key) == expected


def test_a_request_that_is_cancelled_leaves_no_part_behind(apart: Pair) -> None:
    key = apart.ask(TEXT, greedy(8))
    apart.until_a_chunk_is_under_way()
    for worker in ("decode", "prefill"):
        apart.say(worker, m.Cancel(request=key))
    apart.run()
    apart.check_nothing_held()
    assert apart.other.ends.bytes_taken == 0


def test_a_worker_that_is_taken_for_dead_gets_no_part_any_more(apart: Pair) -> None:
    """Neither side keeps anything of the other; the first one that came may have been taken."""
    key = apart.ask(TEXT, greedy(8))
    apart.until_a_chunk_is_under_way()
    apart.cores["prefill"].peer_lost("decode")
    apart.cores["decode"].peer_lost("prefill")
    apart.mail.clear()
    apart.say("decode", m.Cancel(request=key))
    apart.run()
    apart.check_nothing_held()
    assert apart.other.ends.bytes_taken == 0


def test_memory_that_a_rank_took_back_fails_the_request_and_names_the_rank(pair: Pair) -> None:
    """Its stamp is gone: the bytes may be another request's by now."""
    key = pair.ask(TEXT, greedy(8))
    chunk = pair.until_a_chunk_is_under_way()
    pair.second.outgoing.wipe(chunk.payload.offset - STAMP_BYTES)
    pair.run()
    [failed] = pair.answers(m.RequestFailed)
    assert failed.request == key and failed.reason == "rank 1: prefill took its memory back"
    pair.say("prefill", m.Cancel(request=key))
    pair.run()


def test_a_slot_is_given_back_once_every_rank_has_read_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not before, however long the second one takes."""
    led = pair.engines["decode"].exchange.led
    later: list[Any] = []
    send = led._send
    monkeypatch.setattr(
        led, "_send", lambda order: later.append(order) if isinstance(order, Take) else send(order)
    )
    pair.ask(TEXT, greedy(8))
    pair.until_a_chunk_is_under_way()
    used = pair.outgoing.in_use
    while pair.mail:
        pair._deliver(*pair.mail.popleft())
    pair.cores["decode"].step()
    assert later and pair.outgoing.in_use >= used > 0
    assert not [x for _, _, x, _ in pair.mail if isinstance(x, m.KvTaken)]
    monkeypatch.setattr(led, "_send", send)
    for order in later:
        send(order)
    pair.run()


def test_parts_for_another_number_of_ranks_are_refused(pair: Pair) -> None:
    key = pair.ask(TEXT, greedy(8))
    chunk = pair.until_a_chunk_is_under_way()
    decode = pair.engines["decode"]
    decode._cache.num_ranks = 3  # type: ignore[attr-defined]
    pair.run()
    [failed] = pair.answers(m.RequestFailed)
    assert failed.request == key and "parts of 2 ranks for 3" in failed.reason
    assert chunk.payload.ranks == 2


def test_an_arena_without_room_for_a_token_leaves_all_heads_to_the_first_ranks(
    checkpoint: Checkpoint, expected: list[int]
) -> None:
    with made(checkpoint, Way.SHARED, arena=1024) as pair:
        key = pair.ask(TEXT, greedy(8))
        chunk = pair.until_a_chunk_is_under_way()
        assert chunk.payload.ranks == 1 and chunk.payload.shape[3] == 2
        pair.run()
        assert pair.tokens(key) == expected
