"""A whole cluster without sockets, clocks or tensors: the real state machines, stub engines.

Messages wait in one queue per (sender, receiver, lane); a test decides which queue moves next, what
is repeated, who dies and who is cancelled. Rows and KV carry labels instead of numbers, so that a
receiver can tell whether it got what was meant for it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from epd.cluster import (
    Accepted,
    Emit,
    Failed,
    ItemJob,
    Membership,
    Ownership,
    Placement,
    Submission,
    Tell,
)
from epd.errors import EpdError, Overloaded
from epd.handoff import (
    DropSends,
    Free,
    KvReceiver,
    KvSender,
    Pin,
    RowReceiver,
    RowSender,
    Send,
    SendKv,
    SendRows,
    StartDecode,
    Unpin,
)
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

LAYERS = 2
ROW_BYTES = 4
PAYLOAD = m.Payload(dtype="float32", shape=(1,), nbytes=4)
BULK = (m.EmbeddingData, m.KvChunk)

GATEWAY = "gateway"


def token_of(request_id: str, index: int) -> int:
    """The only right answer of the stub model."""
    return sum(request_id.encode()) * 31 + index * 7


@dataclass
class Letter:
    """A message under way; `labels` stand for its bytes."""

    sender: str
    incarnation: int
    message: Any
    labels: tuple[object, ...] = ()


@dataclass
class Pool:
    """Tokens of KV, all or nothing, as Engine.reserve has it."""

    capacity: int
    held: dict[RequestKey, int] = field(default_factory=dict)

    def reserve(self, key: RequestKey, num: int) -> bool:
        assert key not in self.held
        if num > self.capacity - sum(self.held.values()):
            return False
        self.held[key] = num
        return True

    def grow(self, key: RequestKey) -> bool:
        if sum(self.held.values()) >= self.capacity:
            return False
        self.held[key] += 1
        return True


class Worker:
    """What the three stub workers share."""

    def __init__(self, sim: Simulation, name: str) -> None:
        self.sim = sim
        self.name = name
        self.incarnation = sim.next_incarnation()

    def send(self, to: str, message: Any, labels: tuple[object, ...] = ()) -> None:
        self.sim.post(self, to, message, labels)

    def receive(self, letter: Letter) -> None:
        raise AssertionError(letter)

    def peer_lost(self, name: str) -> None:
        raise AssertionError(name)

    def step(self) -> None:
        """Do one unit of work."""


class SimEncode(Worker):
    """Rows are labels (request id, item index, row). Nothing unpinned survives `evict`."""

    def __init__(self, sim: Simulation, name: str) -> None:
        super().__init__(sim, name)
        self.rows = RowSender()
        self.jobs: deque[m.EncodeItem] = deque()
        self.towers: deque[ItemKey] = deque()
        self.made: dict[ItemKey, bool] = {}  # pinned?

    def receive(self, letter: Letter) -> None:
        message = letter.message
        match message:
            case m.EncodeItem():
                if self.rows.expect(letter.sender, message.item):
                    self.jobs.append(message)
            case m.DropItem():
                self.do(self.rows.drop(message.item))
                self.made.pop(message.item, None)
            case m.PullRows():
                self.do(self.rows.pull(letter.sender, message))
            case m.ReleaseRows():
                self.do(self.rows.release(letter.sender, message))
            case m.Members() | m.RowsTaken():
                pass
            case _:
                raise AssertionError(message)

    def peer_lost(self, name: str) -> None:
        self.do(self.rows.peer_lost(name))

    def step(self) -> None:
        self.sim.activity += bool(self.jobs or self.towers)
        if self.jobs:
            job = self.jobs.popleft()
            layout = self.sim.layouts[job.item.request_id][job.item.index]
            self.send(GATEWAY, m.LayoutReady(item=job.item, layout=layout))
            self.towers.append(job.item)
            self.made[job.item] = job.wanted
        elif self.towers:
            item = self.towers.popleft()
            layout = self.sim.layouts[item.request_id][item.index]
            self.do(self.rows.encoded(item, layout.num_rows))

    def evict(self) -> None:
        """Drop every unpinned item that is done."""
        for item in [i for i, pinned in self.made.items() if not pinned and i not in self.towers]:
            del self.made[item]

    def do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self.send(to, message)
                case SendRows() as rows:
                    self.serve(rows)
                case Pin(item):
                    if item in self.made:
                        self.made[item] = True
                case Unpin(item):
                    if item in self.made:
                        self.made[item] = False
                case DropSends():
                    pass
                case _:
                    raise AssertionError(instruction)

    def serve(self, rows: SendRows) -> None:
        pull = m.PullRows(
            request=rows.request,
            item=rows.item,
            first_row=rows.first_row,
            num_rows=rows.num_rows,
        )
        if rows.item not in self.made:
            self.do(self.rows.gone(rows.item, "evicted"))
            self.do(self.rows.pull(rows.to, pull))
            return
        for row in range(rows.first_row, rows.first_row + rows.num_rows):
            part = m.EmbeddingData(
                request=rows.request, item=rows.item, first_row=row, num_rows=1, payload=PAYLOAD
            )
            self.send(rows.to, part, ((rows.item.request_id, rows.item.index, row),))


class SimPrefill(Worker):
    """Computes one token of KV per step, up to the first row that has not landed."""

    def __init__(self, sim: Simulation, name: str) -> None:
        super().__init__(sim, name)
        self.kv = KvSender()
        self.rows = RowReceiver(quota_bytes=2 * ROW_BYTES, part_bytes=2 * ROW_BYTES)
        self.pool = Pool(sim.capacity)
        self.running: dict[RequestKey, m.Admit] = {}
        self.computed: dict[RequestKey, int] = {}
        self.landed: dict[RequestKey, set[tuple[int, int]]] = {}
        self.owed: set[str] = set()

    def receive(self, letter: Letter) -> None:
        message, peer = letter.message, letter.sender
        match message:
            case m.Admit():
                self.admit(peer, message)
            case m.EmbeddingData():
                self.take(peer, message, letter.labels)
            case m.RowsLost():
                self.do(self.rows.lost(peer, message))
            case m.ItemMoved():
                self.do(self.rows.moved(message))
            case m.PullKv():
                self.do(self.kv.pull(peer, message))
            case m.HandedOver():
                self.do(self.kv.landed(peer, message.request))
            case m.PeerFailed():
                self.do(self.kv.peer_failed(peer, message.request))
            case m.Cancel():
                self.do(self.kv.ended(message.request))
            case m.Members() | m.KvTaken():
                pass
            case _:
                raise AssertionError(message)

    def peer_lost(self, name: str) -> None:
        self.do(self.kv.peer_lost(name) + self.rows.peer_lost(name))

    def admit(self, gateway: str, admit: m.Admit) -> None:
        key = admit.request
        if self.kv.refuses(key):
            return
        if not self.pool.reserve(key, admit.num_tokens):
            never = admit.num_tokens > self.pool.capacity
            self.send(gateway, m.Refused(request=key, reason="full", never=never))
            self.owed.add(gateway)
            return
        self.kv.admitted(gateway, key, admit.decode)
        self.running[key], self.computed[key], self.landed[key] = admit, 0, set()
        self.send(gateway, m.Admitted(request=key))
        sizes = [ROW_BYTES] * len(admit.prompt.items)
        self.do(self.rows.admitted(gateway, key, admit.prompt, sizes))

    def take(self, peer: str, part: m.EmbeddingData, labels: tuple[object, ...]) -> None:
        if self.rows.landed(peer, part):
            assert labels == ((part.request.request_id, part.item.index, part.first_row),)
            spot = (part.item.index, part.first_row)
            assert spot not in self.landed[part.request], "a row landed twice"
            self.landed[part.request].add(spot)
            self.do(self.rows.settled(part))

    def step(self) -> None:
        for key in list(self.running):
            if self.advance(key):
                return

    def advance(self, key: RequestKey) -> bool:
        admit, at = self.running[key], self.computed[key]
        if at >= admit.prompt.num_tokens or not self.has_row(key, admit, at):
            return False
        self.computed[key] = at + 1
        self.sim.activity += 1
        self.do(self.kv.computed(key, at + 1))
        self.do(self.rows.consumed(key, admit.prompt.rows_before(at + 1)))
        if at + 1 == admit.prompt.num_tokens:
            self.sample(key, admit)
        return True

    def has_row(self, key: RequestKey, admit: m.Admit, token: int) -> bool:
        for index, (offset, item) in enumerate(
            zip(admit.prompt.offsets, admit.prompt.items, strict=True)
        ):
            row = token - offset
            if 0 <= row < item.layout.num_rows:
                return (index, row) in self.landed[key]
        return True

    def sample(self, key: RequestKey, admit: m.Admit) -> None:
        run = self.sim.run(key, admit.first_index, admit.sampling.max_tokens)
        self.send(self.kv.gateway_of(key) or "", m.Tokens(runs=(run,)))
        if run.finish_reason is not None:
            self.do(self.kv.ended(key))
            return
        state = m.HandOff(
            request=key,
            token_ids=(*admit.prompt.token_ids(), *run.token_ids),
            num_prompt_tokens=admit.prompt.num_tokens,
            position_delta=0,
            sampling=admit.sampling,
            first_index=run.first_index,
        )
        self.do(self.kv.sampled(state))

    def do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self.send(to, message)
                case SendKv() as kv:
                    self.serve(kv)
                case Free(request):
                    self.free(request)
                case DropSends():
                    pass
                case _:
                    raise AssertionError(instruction)

    def serve(self, kv: SendKv) -> None:
        assert kv.first_token + kv.num_tokens <= self.computed[kv.request]
        for token in range(kv.first_token, kv.first_token + kv.num_tokens):
            for layer in range(LAYERS):
                chunk = m.KvChunk(
                    request=kv.request,
                    first_token=token,
                    num_tokens=1,
                    first_layer=layer,
                    num_layers=1,
                    payload=PAYLOAD,
                )
                self.send(kv.to, chunk, ((kv.request, token, layer),))

    def free(self, request: RequestKey) -> None:
        for held in (self.pool.held, self.running, self.computed, self.landed):
            held.pop(request, None)
        self.do(self.rows.ended(request))
        for gateway in self.owed:
            self.send(gateway, m.Room(free_tokens=1))
        self.owed.clear()


class SimDecode(Worker):
    """Generates one token per request and step; grows its KV, or gives the youngest back."""

    def __init__(self, sim: Simulation, name: str) -> None:
        super().__init__(sim, name)
        self.kv = KvReceiver(LAYERS, window_tokens=2)
        self.pool = Pool(sim.capacity)
        self.pages: dict[RequestKey, set[tuple[int, int]]] = {}
        self.running: dict[RequestKey, tuple[m.HandOff, int]] = {}
        self.owed: set[str] = set()

    def receive(self, letter: Letter) -> None:
        message, peer = letter.message, letter.sender
        match message:
            case m.Reserve():
                self.reserve(peer, message)
            case m.KvReady():
                self.do(self.kv.ready(peer, message))
            case m.KvChunk():
                self.take(peer, message, letter.labels)
            case m.HandOff():
                self.do(self.kv.handed_off(peer, message))
            case m.PeerFailed():
                self.do(self.kv.peer_failed(peer, message.request))
            case m.Cancel():
                self.do(self.kv.ended(message.request))
            case m.Members():
                pass
            case _:
                raise AssertionError(message)

    def peer_lost(self, name: str) -> None:
        self.do(self.kv.peer_lost(name))

    def reserve(self, gateway: str, message: m.Reserve) -> None:
        key = message.request
        if self.kv.refuses(key):
            return
        if not self.pool.reserve(key, message.num_tokens):
            never = message.num_tokens > self.pool.capacity
            self.send(gateway, m.Refused(request=key, reason="full", never=never))
            self.owed.add(gateway)
            return
        self.pages[key] = set()
        self.kv.reserved(gateway, key, message.prefill, message.num_tokens, 0)
        self.send(gateway, m.Reserved(request=key, cached_tokens=0))

    def take(self, peer: str, chunk: m.KvChunk, labels: tuple[object, ...]) -> None:
        if self.kv.landed(peer, chunk):
            assert labels == ((chunk.request, chunk.first_token, chunk.first_layer),)
            spot = (chunk.first_token, chunk.first_layer)
            assert spot not in self.pages[chunk.request], "KV landed twice"
            self.pages[chunk.request].add(spot)
            self.do(self.kv.settled(chunk.request))

    def step(self) -> None:
        for key in list(self.running):
            if key not in self.running:
                continue
            state, index = self.running[key]
            used = state.num_prompt_tokens + index - state.first_index + 1
            if used > self.pool.held[key] and not self.pool.grow(key):
                youngest = list(self.running)[-1]
                self.do(self.kv.failed(youngest, Overloaded("no KV block is left")))
                continue
            run = self.sim.run(key, index + 1, state.sampling.max_tokens)
            self.running[key] = (state, index + 1)
            self.send(self.kv.gateway_of(key) or "", m.Tokens(runs=(run,)))
            if run.finish_reason is not None:
                self.do(self.kv.ended(key))

    def do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self.send(to, message)
                case StartDecode(state):
                    want = {(t, i) for t in range(state.num_prompt_tokens) for i in range(LAYERS)}
                    assert self.pages[state.request] == want, "decode starts on missing KV"
                    self.running[state.request] = (state, state.first_index)
                case Free(request):
                    self.free(request)
                case _:
                    raise AssertionError(instruction)

    def free(self, request: RequestKey) -> None:
        self.pool.held.pop(request, None)
        self.pages.pop(request, None)
        self.running.pop(request, None)
        for gateway in self.owed:
            self.send(gateway, m.Room(free_tokens=1))
        self.owed.clear()


STAGES: dict[type[Worker], Stage] = {
    SimEncode: Stage.ENCODE,
    SimPrefill: Stage.PREFILL,
    SimDecode: Stage.DECODE,
}


@dataclass
class Outcome:
    """What the client has seen."""

    prompt: int = 0
    tokens: list[int] = field(default_factory=list)
    finish: FinishReason | None = None
    error: EpdError | None = None
    cancelled: bool = False

    @property
    def ended(self) -> bool:
        return self.finish is not None or self.error is not None or self.cancelled


class Simulation:
    """One gateway and its workers. `capacity` counts KV tokens per language worker."""

    def __init__(self, capacity: int = 40) -> None:
        self.capacity = capacity
        self.queues: dict[tuple[str, str, bool], deque[Letter]] = {}
        self.workers: dict[str, Worker] = {}
        self.layouts: dict[str, list[ItemLayout]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.wanted: dict[str, int] = {}
        self.faults = 0
        self.activity = 0  # grows with every message and every piece of work
        self._incarnations = 0
        self.membership = Membership({})
        self.ownership = Ownership(self.membership, Placement(self.membership), max_context=1000)

    def next_incarnation(self) -> int:
        self._incarnations += 1
        return self._incarnations

    # ---- what a test does

    def join(self, kind: type[Worker], name: str) -> None:
        worker = self.workers[name] = kind(self, name)
        stage = STAGES[kind]
        member = Member(
            name=name,
            incarnation=str(worker.incarnation),
            stages=(stage,),
            control="",
            bulk="",
            host="",
            pool="",
            modalities=(Modality.IMAGE,) if stage is Stage.ENCODE else (),
            kv_tokens=0 if stage is Stage.ENCODE else self.capacity,
        )
        self.membership.join(member, {"protocol": str(m.PROTOCOL_VERSION)})
        self.do(self.ownership.room())

    def kill(self, name: str) -> None:
        """The worker and all that is under way to or from it are gone; everybody notices."""
        self.faults += 1
        dead = self.workers.pop(name)
        for sender, receiver, _ in [key for key in self.queues if name in key[:2]]:
            for lane in (True, False):
                self.queues.pop((sender, receiver, lane), None)
        for worker in self.workers.values():
            worker.peer_lost(name)
        self.membership.leave(name, str(dead.incarnation))
        self.do(self.ownership.worker_lost(name))

    def submit(self, request_id: str, item_rows: list[int], num_tokens: int) -> None:
        self.layouts[request_id] = [
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
        self.outcomes[request_id] = Outcome()
        self.wanted[request_id] = num_tokens
        submission = Submission(
            request_id=request_id,
            text=tuple((1, 2) for _ in range(len(item_rows) + 1)),
            items=tuple(
                ItemJob(modality=Modality.IMAGE, url=None, text_before="") for _ in item_rows
            ),
            sampling=SamplingParams(max_tokens=num_tokens),
        )
        self.do(self.ownership.submit(submission))

    def cancel(self, request_id: str) -> None:
        if not self.outcomes[request_id].ended:
            self.outcomes[request_id].cancelled = True
            self.do(self.ownership.cancel(request_id))

    def deliver(self, key: tuple[str, str, bool], *, repeat: bool = False) -> None:
        """Move the head of one queue; `repeat` leaves a copy behind."""
        queue = self.queues[key]
        letter = queue[0] if repeat else queue.popleft()
        if not queue:
            del self.queues[key]
        receiver = key[1]
        if receiver == GATEWAY:
            self.to_gateway(letter)
        elif receiver in self.workers:
            self.workers[receiver].receive(letter)

    def settle(self, limit: int = 3_000) -> None:
        """Run until nothing moves any more."""
        for _ in range(limit):
            before = self.activity
            for key in list(self.queues):
                if key in self.queues:
                    self.deliver(key)
            for worker in list(self.workers.values()):
                worker.step()
            if not self.queues and self.activity == before:
                return
        raise AssertionError("the cluster never comes to rest")

    # ---- the inside

    def post(self, sender: Worker, to: str, message: Any, labels: tuple[object, ...]) -> None:
        self.activity += 1
        if to != GATEWAY and to not in self.workers:
            return
        key = (sender.name, to, isinstance(message, BULK))
        letter = Letter(sender.name, sender.incarnation, message, labels)
        self.queues.setdefault(key, deque()).append(letter)

    def run(self, key: RequestKey, index: int, max_tokens: int) -> TokenRun:
        last = index == max_tokens - 1
        return TokenRun(
            request=key,
            first_index=index,
            token_ids=(token_of(key.request_id, index),),
            finish_reason=FinishReason.LENGTH if last else None,
        )

    def to_gateway(self, letter: Letter) -> None:
        owner, sender, message = self.ownership, letter.sender, letter.message
        match message:
            case m.LayoutReady():
                self.do(owner.layout(sender, message))
            case m.RowsLost():
                self.do(owner.rows_lost(sender, message))
            case m.Reserved():
                self.do(owner.reserved(sender, message))
            case m.Admitted():
                self.do(owner.admitted(sender, message))
            case m.Refused():
                self.do(owner.refused(sender, message))
            case m.Room():
                self.do(owner.room())
            case m.Tokens():
                self.do(owner.tokens(sender, message.runs))
            case m.RequestFailed():
                self.do(owner.request_failed(sender, message))
            case _:
                raise AssertionError(message)

    def do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Tell(to, message):
                    self.activity += 1
                    if to in self.workers:
                        queue = self.queues.setdefault((GATEWAY, to, False), deque())
                        queue.append(Letter(GATEWAY, 0, message))
                case Emit(request_id, run):
                    outcome = self.outcomes[request_id]
                    assert not outcome.ended
                    assert run.first_index == len(outcome.tokens)
                    outcome.tokens += run.token_ids
                    outcome.finish = run.finish_reason
                case Failed(request_id, error):
                    assert not self.outcomes[request_id].ended
                    self.outcomes[request_id].error = error
                case Accepted(request_id, num_prompt_tokens):
                    self.outcomes[request_id].prompt = num_prompt_tokens
                case _:
                    raise AssertionError(instruction)

    # ---- what must hold

    def check_streams(self) -> None:
        """Every client has seen a prefix of the right answer, and a finished one all of it."""
        for request_id, outcome in self.outcomes.items():
            right = [token_of(request_id, i) for i in range(self.wanted[request_id])]
            assert outcome.tokens == right[: len(outcome.tokens)]
            if outcome.finish is not None:
                assert len(outcome.tokens) in {len(right), self.capacity - outcome.prompt}

    def check_nothing_held(self) -> None:
        """Nobody holds anything for anybody."""
        assert self.ownership.idle
        for worker in self.workers.values():
            match worker:
                case SimEncode():
                    assert worker.rows.num_items == 0
                    assert not worker.made
                case SimPrefill():
                    assert worker.kv.num_requests == 0 and worker.rows.num_requests == 0
                    assert not worker.pool.held and not worker.landed
                case SimDecode():
                    assert worker.kv.num_requests == 0
                    assert not worker.pool.held and not worker.pages
                case _:
                    raise AssertionError(worker)
