"""A whole cluster without sockets, clocks or tensors: the real state machines, stub engines.

Messages wait in one queue per connection and lane; a test decides which queue moves next, what is
repeated, who dies, who is taken for dead, who is cancelled and what arrives broken. A death is
noticed by each peer in its own time, behind what the dead one had sent. Every message names the
incarnation it is meant for, and one from a stranger waits until the table names its sender.
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from epd.cluster import ItemJob, Submission, asked_as
from epd.types import (
    FinishReason,
    ItemKey,
    ItemLayout,
    Member,
    Modality,
    RequestKey,
    SamplingParams,
    Stage,
    TokenRun,
)
from epd.wire import messages as m
from tests.handoff.stub_gateway import Outcome, SimGateway
from tests.handoff.stub_workers import Labels, SimEncode, Worker

BULK = (m.EmbeddingData, m.KvChunk)

Lane = tuple[str, int, str, int, bool]
"""(sender, its incarnation, receiver, its incarnation, bulk)"""


@dataclass
class Letter:
    """A message under way; `labels` stand for its bytes, none for bytes that are no good."""

    sender: str
    incarnation: int
    message: Any
    labels: Labels = ()


@dataclass
class Simulation:
    """Gateways and workers. The sizes are small, so that every limit is met all the time."""

    context: int = 22  # every stage has a worker with KV for so many tokens
    quota_rows: int = 2  # rows that a prefill worker holds
    window: int = 2  # tokens of KV that decode has asked for
    chunk: int = 1  # rows, or tokens of one layer, in a bulk message
    stride: int = 1  # tokens that prefill computes per step
    hits: int = 0  # of four look-ups in a cache, so many find something; so many items are held
    queues: dict[Lane, deque[Letter]] = field(default_factory=dict)
    gateways: dict[str, SimGateway] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    faults: int = 0
    activity: int = 0  # grows with every message and every piece of work
    incarnations: int = 0

    def next_incarnation(self) -> int:
        self.incarnations += 1
        return self.incarnations

    def of(self, request_id: str) -> Outcome:
        """What becomes of the client's request of which this one may be a part."""
        return self.outcomes[asked_as(request_id)]

    # ---- what a test does

    def open(self, name: str) -> None:
        """Start a gateway; workers register with it."""
        self.gateways[name] = SimGateway(self, name)
        for worker in self.workers.values():
            if name not in worker.gateways:
                self.register(worker, name)

    def start(self, kind: type[Worker], name: str, capacity: int) -> None:
        """Start a worker; it registers everywhere."""
        self.workers[name] = worker = kind(self, name, capacity)
        for gateway in self.gateways:
            self.register(worker, gateway)

    def register(self, worker: Worker, name: str) -> None:
        """Registration is repeated until it is answered, so here it never fails."""
        gateway = self.gateways.get(name)
        if gateway is None or self.workers.get(worker.name) is not worker:
            return
        worker.gateways[name] = gateway.incarnation
        worker.tables[name] = {}
        stages = worker.stages
        member = Member(
            name=worker.name,
            incarnation=str(worker.incarnation),
            stages=stages,
            control="",
            bulk="",
            host="",
            pool="",
            modalities=(Modality.IMAGE,) if Stage.ENCODE in stages else (),
            kv_tokens=0 if Stage.ENCODE in stages else worker.capacity,
        )
        message = m.Register(member=member, fingerprint={}, via="")
        self.post(worker.name, worker.incarnation, name, gateway.incarnation, message)

    def kill(self, name: str, keep: int) -> None:
        """A node is gone. Of each lane from it `keep` messages arrive, then the news."""
        self.faults += 1
        self.activity += 1
        dead = self.workers.pop(name, None) or self.gateways.pop(name)
        number = dead.incarnation
        for lane in [lane for lane in self.queues if lane[:2] == (name, number)]:
            self.queues[lane] = deque(list(self.queues[lane])[:keep])
        others: list[Worker | SimGateway] = [*self.workers.values(), *self.gateways.values()]
        for other in others:
            lane = (name, number, other.name, other.incarnation, False)
            self.queues.setdefault(lane, deque()).append(
                Letter(name, number, m.Leaving(reason="died"))
            )
        for outcome in self.outcomes.values():
            outcome.given_up |= outcome.gateway == name and not outcome.ended
        self.queues = {lane: letters for lane, letters in self.queues.items() if letters}

    def submit(
        self, gateway: str, item_rows: list[int], num_tokens: int, n: int = 1, scored: bool = False
    ) -> None:
        """A client asks."""
        request_id = f"r{len(self.outcomes)}"
        layouts = [
            ItemLayout(
                modality=Modality.IMAGE,
                token_ids=(9,) * rows,
                row_spans=((0, rows),),
                width=1,
                dtype="float32",
                content_key=f"{request_id}/{index}".encode(),
            )
            for index, rows in enumerate(item_rows)
        ]
        self.outcomes[request_id] = Outcome(gateway, layouts, num_tokens, n, scored)
        job = ItemJob(modality=Modality.IMAGE, url=None, text_before="", source=b"picture")
        scores = 0 if scored else None
        submission = Submission(
            request_id=request_id,
            text=((1, 2),) * (len(item_rows) + 1),
            items=(job,) * len(item_rows),
            sampling=SamplingParams(max_tokens=num_tokens, n=n, prompt_logprobs=scores),
        )
        owner = self.gateways[gateway]
        owner.do(owner.ownership.submit(submission))

    def stop(self, request_id: str, choice: int) -> None:
        """The gateway sees a stop string in what has come of a choice."""
        outcome = self.outcomes[request_id]
        outcome.stopped.add(choice)
        owner = self.gateways[outcome.gateway]
        owner.do(owner.ownership.end_choice(request_id, choice))

    def cancel(self, request_id: str) -> None:
        """The client leaves."""
        outcome = self.outcomes[request_id]
        if not outcome.ended:
            outcome.given_up = True
            owner = self.gateways[outcome.gateway]
            owner.do(owner.ownership.cancel(request_id))

    def suspect(self, name: str, peer: str) -> None:
        """A worker takes another, which lives, for dead."""
        self.faults += 1
        self.activity += 1
        worker = self.workers[name]
        worker.lose(peer, worker.view[peer])

    def cut(self, sender: str, number: int, to: str, meant: int) -> None:
        """What a worker had queued for a peer that it gives up is lost."""
        for bulk in (False, True):
            self.queues.pop((sender, number, to, meant, bulk), None)

    def ask(self, gateway: str, item: ItemKey) -> None:
        """A gateway needs an item that it may have had held."""
        for worker in self.workers.values():
            if isinstance(worker, SimEncode):
                self.gateways[gateway].tell(worker.name, m.RunTower(item=item))

    def chance(self, what: str) -> int:
        """Equal for equal names in one simulation; 0 more often than not, unless `hits` is high."""
        digest = zlib.crc32(f"{what} {self.hits}".encode())
        return digest // 4 if digest % 4 < self.hits else 0

    def cached(self, what: str, most: int) -> int:
        """How many tokens a look-up finds."""
        return self.chance(what) % (most + 1)

    def evict(self) -> None:
        """Every encoder needs all of its room for others."""
        for worker in self.workers.values():
            if isinstance(worker, SimEncode):
                worker.evict()

    def spoil(self, lane: Lane) -> None:
        """The next bulk message of a lane arrives with bytes that do not fit its header."""
        self.faults += 1
        self.queues[lane][0].labels = ()

    def deliver(self, lane: Lane, *, repeat: bool = False) -> None:
        """Move the head of one queue; `repeat` leaves a copy behind."""
        sender, number, receiver, meant, _ = lane
        letter = self.queues[lane][0]
        node = self.workers.get(receiver) or self.gateways.get(receiver)
        if isinstance(node, Worker) and node.incarnation == meant:
            knows = number in (node.view.get(sender), node.gateways.get(sender))
            table = None if knows else self._table_naming(sender, number, node)
            if table is not None:
                self.deliver(table)
                return
        else:
            knows = isinstance(letter.message, m.Register) or (
                isinstance(node, SimGateway) and node.knows(sender, number)
            )
        if not repeat or isinstance(letter.message, m.Leaving):
            self.queues[lane].popleft()
            if not self.queues[lane]:
                del self.queues[lane]
        self.activity += 1
        if node is None or node.incarnation != meant or not knows:
            return
        if isinstance(letter.message, m.Leaving):
            node.lose(sender, number)
        else:
            node.handle(letter)

    def turn(self) -> None:
        """One message per lane, one step per worker."""
        for lane in list(self.queues):
            if lane in self.queues:
                self.deliver(lane)
        for worker in list(self.workers.values()):
            worker.step()

    def silence(self) -> None:
        """A worker that a gateway does not know gets no heartbeats, and after a while sees that."""
        for worker in self.workers.values():
            for name, number in list(worker.gateways.items()):
                if not self.gateways[name].knows(worker.name, worker.incarnation):
                    worker.lose(name, number)
            for name in list(worker.doubted):
                worker.meet_again(name)

    def settle(self, limit: int = 3_000) -> None:
        """Run until nothing moves any more."""
        for _ in range(limit):
            before = self.activity
            self.turn()
            if not self.queues and self.activity == before:
                self.silence()
                if self.activity == before:
                    return
        raise AssertionError("the cluster never comes to rest")

    # ---- the inside

    def post(
        self,
        sender: str,
        number: int,
        to: str,
        meant: int,
        message: Any,
        labels: Labels = (),
    ) -> None:
        self.activity += 1
        lane = (sender, number, to, meant, isinstance(message, BULK))
        self.queues.setdefault(lane, deque()).append(Letter(sender, number, message, labels))

    def _table_naming(self, sender: str, number: int, node: Worker) -> Lane | None:
        """The lane with a table under way to this node that names a sender it does not know."""
        for lane, letters in self.queues.items():
            if lane[2:4] == (node.name, node.incarnation) and any(
                isinstance(letter.message, m.Members)
                and any(
                    (w.name, w.incarnation) == (sender, str(number)) for w in letter.message.members
                )
                for letter in letters
            ):
                return lane
        return None

    def token(self, key: RequestKey, choice: int, index: int) -> int:
        """The only right answer of the stub model."""
        return sum(asked_as(key.request_id).encode()) * 31 + choice * 1000 + index * 7

    def run(self, key: RequestKey, choice: int, index: int, max_tokens: int) -> TokenRun:
        last = index == max_tokens - 1
        return TokenRun(
            request=key,
            first_index=index,
            token_ids=(self.token(key, choice, index),),
            finish_reason=FinishReason.LENGTH if last else None,
            choice=choice,
        )

    # ---- what must hold

    def check_streams(self) -> None:
        """Every client has seen a prefix of the right answer, and a finished one all of it."""
        for request_id, outcome in self.outcomes.items():
            key = RequestKey(request_id, 0)
            for choice, tokens in enumerate(outcome.tokens):
                right = [self.token(key, choice, index) for index in range(outcome.wanted)]
                assert tokens == right[: len(tokens)]
                if choice in outcome.finished and not self.faults:
                    assert len(tokens) >= min(len(right), self.context - outcome.prompt)

    def check_nothing_held(self) -> None:
        """Nobody holds anything for anybody."""
        assert all(gateway.ownership.idle for gateway in self.gateways.values())
        for worker in self.workers.values():
            worker.check_nothing_held()
