"""KV between workers of two ranks each: every rank hands over its own heads, safely."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch

from epd.engine.ranks.orders import Take
from epd.models.language import load_language
from epd.models.spec import Checkpoint, read_checkpoint
from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing
from epd.transfer.segments import STAMP_BYTES
from epd.wire import messages as m
from epd.workers.rank_ends import RankEnds, Tell
from tests.checkpoints import build
from tests.engine.crew import led_model
from tests.engine.tiny import greedy, make_case
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


class Ends:
    """Of one worker's rank 1, and what it has."""

    def __init__(self, *, arena: int) -> None:
        self.outgoing, self.incoming = Outgoing(arena_bytes=arena), Incoming()

    def make(self, rank: int, tell: Tell) -> RankEnds:
        self.ends = RankEnds(rank, tell, outgoing=self.outgoing, incoming=self.incoming)
        return self.ends


class Pair(Stage):
    """Two ranks of prefill, two of decode."""

    def __init__(self, models: dict[str, Any], prefill: Ends, decode: Ends, arena: int) -> None:
        outgoing = Outgoing(arena_bytes=arena)
        self.second = prefill
        facts: dict[str, dict[str, Any]] = {
            "prefill": {"segment": outgoing.segment, "ranks": (prefill.ends.facts,)},
            "decode": {"ranks": (decode.ends.facts,)},
        }
        super().__init__(models=models, facts=facts, outgoing=outgoing)

    def chunks(self) -> list[m.KvChunk]:
        return [message for _, _, message, _ in self.mail if isinstance(message, m.KvChunk)]

    def until_a_chunk_is_under_way(self) -> m.KvChunk:
        while not self.chunks():
            if self.mail:
                self._deliver(*self.mail.popleft())
            else:
                self.prefill.step()
        return self.chunks()[0]


@pytest.fixture
def pair(checkpoint: Checkpoint) -> Iterator[Pair]:
    with made(checkpoint) as found:
        yield found
        found.check_nothing_held()
        assert found.outgoing.in_use == found.outgoing.ignored == 0


@contextmanager
def made(checkpoint: Checkpoint, arena: int = ARENA) -> Iterator[Pair]:
    prefill, decode = Ends(arena=arena), Ends(arena=0)
    with ExitStack() as stack:
        models = {
            role: stack.enter_context(led_model(checkpoint, 2, ends.make))
            for role, ends in (("prefill", prefill), ("decode", decode))
        }
        found = Pair(models, prefill, decode, arena)
        try:
            yield found
        finally:
            found.close()
    for ends in (prefill, decode):
        ends.incoming.close()
        ends.outgoing.close()


def test_each_rank_hands_over_its_own_heads(pair: Pair, expected: list[int]) -> None:
    """Through both arenas, in several chunks; nothing but messages goes between the first ranks."""
    key = pair.ask(TEXT, greedy(8))
    pair.until_a_chunk_is_under_way()
    first = pair.chunks()[0]
    assert first.payload.ranks == 2 and first.payload.shape[3] == 1  # of two heads
    assert all(frame is None for _, _, _, frame in pair.mail)
    pair.run()
    assert pair.tokens(key) == expected and len(expected) == 8
    assert pair.kv_bytes_sent == 70 * 2 * 4 * 2 * 16 * 4


def test_what_the_second_rank_has_counts(checkpoint: Checkpoint, expected: list[int]) -> None:
    """Negative control: with other bytes in its arena the answer is another."""
    with made(checkpoint) as pair:
        key = pair.ask(TEXT, greedy(8))
        pair.until_a_chunk_is_under_way()
        for chunk in pair.chunks():
            at = chunk.payload.offset
            pair.second.outgoing._bytes[at : at + chunk.payload.nbytes] = 0
        pair.run()
        assert pair.tokens(key) != expected


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
    with made(checkpoint, arena=1024) as pair:
        key = pair.ask(TEXT, greedy(8))
        chunk = pair.until_a_chunk_is_under_way()
        assert chunk.payload.ranks == 1 and chunk.payload.shape[3] == 2
        pair.run()
        assert pair.tokens(key) == expected
