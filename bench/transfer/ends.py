"""The two ends, each a process of its own: an encode worker whose rows are there, and its puller.

Started by `__main__`: each says where it listens on its first line of stdout and reads the other's
from stdin. The puller's second line has the seconds of every item.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch

from bench.transfer import plain
from epd.config import WireConfig
from epd.encoder import ItemBroken, ItemEncoded
from epd.encoder.times import ItemTimes
from epd.engine import MultiModalEmbeddingData
from epd.handoff import Instruction, RowReceiver, Send
from epd.models.laps import Laps
from epd.transfer.incoming import Incoming, nothing
from epd.transfer.outgoing import Outgoing
from epd.transfer.segments import host_id
from epd.types import ItemKey, ItemLayout, Member, Modality, Prompt, PromptItem, RequestKey, Stage
from epd.wire.inbox import Inbox
from epd.wire.links import Delivery
from epd.wire.messages import (
    PROTOCOL_VERSION,
    DropItem,
    EmbeddingData,
    EncodeItem,
    Holding,
    Register,
    RowsTaken,
)
from epd.wire.zmq_links import ZmqLinks
from epd.workers.core import Core
from epd.workers.encode import EncodeCore
from epd.workers.lookup import Lookup
from epd.workers.process import Worker, settle_threads
from epd.workers.pulse import Pulse
from epd.workers.seats import PULL_BYTES, Seat
from epd.workers.station import Station
from epd.workers.turns import Claims, Turn

WIDTH = 3584
DTYPE = torch.bfloat16
ROW_BYTES = WIDTH * DTYPE.itemsize
"""One row of Qwen2.5-VL-7B."""


class Finished:
    """An encoder whose items have their rows at once: as many as the job's bytes say."""

    has_work = False

    def __init__(self, most_rows: int, outgoing: Outgoing) -> None:
        self.times = ItemTimes()
        self._rows = outgoing.keep(torch.randn(most_rows, WIDTH).to(DTYPE))
        self._items: dict[ItemKey, int] = {}
        self._encoded: list[ItemEncoded] = []

    @property
    def num_requests(self) -> int:
        """Those that are not told of yet."""
        return len(self._encoded)

    def submit(self, job: EncodeItem, data: bytes | None) -> None:
        self._items[job.item] = int(data or b"0")
        self._encoded.append(ItemEncoded(job.item, self._items[job.item]))
        self.has_work = True

    def step(self, *, alone: bool = True) -> list[ItemEncoded]:
        found, self._encoded, self.has_work = self._encoded, [], False
        return found

    def timed(self) -> list[ItemKey]:
        """Nothing was timed."""
        return []

    def rows(self, item: ItemKey) -> torch.Tensor | None:
        return self._rows[: self._items[item]] if item in self._items else None

    def drop(self, item: ItemKey) -> None:
        self._items.pop(item, None)

    def run(self, item: ItemKey) -> None:
        """Nothing is held."""

    pin = unpin = run

    def expire(self, now: float) -> list[ItemBroken]:
        """Nothing has a deadline."""
        return []

    def gauges(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Nothing to free."""


class Puller:
    """Prefill's part of E->P: pull, copy, merge, release; and the plain way before each item."""

    stuck = False

    def __init__(
        self,
        station: Station,
        encoder: str,
        todo: list[int],
        at_once: int,
        baseline: Callable[[int], float],
        on_end: Callable[[list[dict[str, float]]], None],
    ) -> None:
        self._station = station
        self._encoder = encoder
        self._todo = todo
        self._at_once = at_once
        self._baseline = baseline
        self._on_end = on_end
        self._incoming = Incoming()
        self._done: list[dict[str, float]] = []
        self._prompt: Prompt | None = None
        self._clock = ~station.members[encoder].pid << 3 | 2  # as clock_getcpuclockid() gives it

    def _cpu(self) -> float:
        """CPU seconds of both processes so far."""
        return time.process_time() + time.clock_gettime(self._clock)

    @property
    def claims(self) -> Claims:
        """One item after the other."""
        return Claims(arriving=int(self._prompt is None))

    def step(self, turn: Turn = Turn.ALONE) -> None:
        if self._prompt is not None:
            return
        if len(self._done) == len(self._todo):
            self._on_end(self._done)
            return
        num_rows = self._todo[len(self._done)]
        began = self._cpu()
        self._plain_s = sum(self._baseline(num_rows * ROW_BYTES) for _ in range(self._at_once))
        self._plain_cpu_s = self._cpu() - began
        self._begin(num_rows)

    def _begin(self, num_rows: int) -> None:
        name = f"r{len(self._done)}"
        self._request = RequestKey(name, 1)
        parts = tuple(self._part(name, i, num_rows) for i in range(self._at_once))
        self._prompt = Prompt(text=((),) * (1 + len(parts)), items=parts)
        self._rows = RowReceiver(len(parts) * num_rows * ROW_BYTES, PULL_BYTES)
        self._merged = MultiModalEmbeddingData(self._prompt)
        for part in parts:
            job = EncodeItem(item=part.item, modality=Modality.IMAGE, url=None, text_before="")
            self._station.links.send(self._encoder, job, str(num_rows).encode())
        self._began, self._cpu_began = time.perf_counter(), self._cpu()
        sizes, first_rows = [ROW_BYTES] * len(parts), [0] * len(parts)
        self._do(self._rows.admitted("", self._request, self._prompt, sizes, first_rows))

    def _part(self, name: str, index: int, num_rows: int) -> PromptItem:
        layout = ItemLayout(
            modality=Modality.IMAGE,
            token_ids=(0,) * num_rows,
            row_spans=((0, num_rows),),
            width=WIDTH,
            dtype=str(DTYPE).removeprefix("torch."),
            content_key=f"{name} {index}".encode(),
        )
        return PromptItem(item=ItemKey(name, index, 1), encoder=self._encoder, layout=layout)

    def receive(self, delivery: Delivery) -> None:
        part = delivery.message
        if not isinstance(part, EmbeddingData) or not self._rows.landed(delivery.sender, part):
            return
        member = self._station.members[delivery.sender]
        unread = nothing
        if part.payload.lent:
            taken = RowsTaken(slot=part.payload.slot, item=part.item)
            unread = partial(self._station.send, delivery.sender, taken)
        rows = self._incoming.take(member, part.payload, delivery.frame, unread)
        if part.payload.lent and not part.payload.kept:
            rows = rows.copied()
        self._merged.add(part.item.index, part.first_row, rows.tensor, rows.check)
        self._do(self._rows.settled(part))
        assert self._prompt is not None
        if self._merged.ready_tokens == self._prompt.num_tokens:
            self._end()

    def _end(self) -> None:
        took = time.perf_counter() - self._began
        assert self._prompt is not None
        size = self._todo[len(self._done)] * ROW_BYTES * self._at_once
        self._done.append(
            {
                "bytes": size,
                "rows_s": took,
                "plain_s": self._plain_s,
                "rows_cpu_s": self._cpu() - self._cpu_began,
                "plain_cpu_s": self._plain_cpu_s,
            }
        )
        self._merged.close()
        for part in self._prompt.items:
            self._station.send(self._encoder, DropItem(item=part.item))
        self._prompt = None

    def _do(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            assert isinstance(instruction, Send)
            self._station.send(instruction.to, instruction.message)

    def peer_lost(self, name: str) -> None:
        raise AssertionError(f"{name} was lost")

    gateway_lost = peer_lost

    def holding(self, gateway: str) -> Holding:
        return Holding(requests=(), items=())

    def local(self, event: object) -> None:
        raise AssertionError(event)

    def gauges(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self._incoming.close()


class _Sink:
    """The seat's door into the inbox of the process."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.seat: Seat | None = None

    def put(self, event: object) -> bool:
        return self._inbox.put((self.seat, event))


def main() -> None:
    """`argv`: the end, its address, wire settings and rows of each item as JSON, the plain way,
    how many items are pulled at once."""
    name, address, settings, rows, beside, at_once = sys.argv[1:]
    torch.set_num_threads(1)
    settle_threads()
    wire = WireConfig(**json.loads(settings))
    todo: list[int] = json.loads(rows)
    most = max(todo) * ROW_BYTES
    inbox = Inbox()
    worker = Worker(inbox, 0)
    worker.catch_signals()
    sink, pulse = _Sink(inbox), Pulse()
    links = ZmqLinks(name, f"tcp://{address}", wire, sink, on_io=pulse.answer)
    outgoing = Outgoing(arena_bytes=wire.shm_bytes if name == "encode" else 0)
    me = Member(
        name=name,
        incarnation=links.incarnation,
        stages=(Stage.ENCODE if name == "encode" else Stage.PREFILL,),
        control=links.control,
        bulk=links.bulk,
        host=host_id() if wire.shm_bytes else name,
        pool="",
        segment=outgoing.segment,
        pid=os.getpid(),
    )
    port = _serve_plain(address, most, wire, beside) if name == "encode" else 0
    print(json.dumps({**asdict(me), "port": port}, default=str), flush=True)
    other = json.loads(sys.stdin.readline())
    port, other["stages"] = other.pop("port"), tuple(map(Stage, other["stages"]))
    peer = Member(**{**other, "modalities": ()})
    register = Register(member=me, fingerprint={"protocol": str(PROTOCOL_VERSION)}, via="")
    station = Station(links, wire, Lookup((), 1.0), register, pulse, lambda member: True)
    station.members[peer.name] = peer
    core: Core
    if name == "encode":
        core = EncodeCore(station, Finished(max(todo), outgoing), outgoing, wire.chunk_bytes)  # type: ignore[arg-type]
    else:
        host = peer.control.removeprefix("tcp://").rpartition(":")[0]
        baseline = _baseline(host, port, most, peer, beside)
        core = Puller(
            station, peer.name, todo, int(at_once), baseline, lambda done: _say(worker, done)
        )
    _run(worker, sink, Seat(links, pulse, station, core, Laps()), peer, core)


def _serve_plain(address: str, most: int, wire: WireConfig, beside: str) -> int:
    if beside == "zmq":
        return plain.ZmqServer(address, most, wire.chunk_bytes).port
    return plain.PlainServer(address, most).port


def _baseline(host: str, port: int, most: int, peer: Member, beside: str) -> Callable[[int], float]:
    if beside == "zmq":
        return plain.over_zmq(host, port)
    return plain.memcpy(most) if peer.segment else plain.tcp(host, port, most)


def _run(worker: Worker, sink: _Sink, seat: Seat, peer: Member, core: Core) -> None:
    seat.station.attach(core)
    sink.seat = seat
    worker.seats = [seat]
    seat.links.connect(peer)
    seat.links.start()
    try:
        worker.run()
    finally:
        worker.close()


def _say(worker: Worker, done: list[dict[str, float]]) -> None:
    print(json.dumps(done), flush=True)
    worker.stopping = True


if __name__ == "__main__":
    main()
