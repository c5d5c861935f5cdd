"""A gateway and workers with hardly any room, all in one place: who is admitted, and who starves.

The decisions are the real ones; the workers are as simple as they can be and still refuse, cache,
preempt, hold towers, lose rows and die. A death is known at once. What the hand-offs do when news
comes late has a simulation of its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
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
    asked_as,
    hear,
)
from epd.errors import EpdError
from epd.prefix import PREFIX_TOKENS
from epd.types import (
    FinishReason,
    ItemKey,
    Member,
    Modality,
    PromptItem,
    RequestKey,
    SamplingParams,
    Stage,
    TokenLogprobs,
    TokenRun,
)
from epd.wire import messages as m
from tests.cluster.owning import root_of
from tests.cluster.samples import decode, encode, fused, layout, prefill

ROWS = 4
"""What an item becomes."""

GATEWAY = "gateway"


def token_of(choice: int, index: int) -> int:
    """The only right answer."""
    return 1000 * (choice + 1) + index


@dataclass
class Run:
    """What a language worker holds for one attempt. `left`: items whose rows have not come."""

    size: int
    admit: m.Admit | None = None
    left: dict[int, PromptItem] = field(default_factory=dict)
    choices: dict[int, int] = field(default_factory=dict)  # by choice the next index
    length: int = 0  # tokens with KV
    started: bool = False


class Language:
    """A prefill, decode or fused worker with KV for `member.kv_tokens`."""

    def __init__(self, crowd: Crowd, member: Member) -> None:
        self.crowd = crowd
        self.member = member
        self.runs: dict[RequestKey, Run] = {}
        self.cache: set[bytes] = set()
        self.ended: set[RequestKey] = set()
        self.owes_room = False

    def say(self, message: Any, to: str = GATEWAY) -> None:
        self.crowd.post(self.member.name, to, message)

    @property
    def room(self) -> int:
        return self.member.kv_tokens - sum(run.size for run in self.runs.values())

    def handle(self, sender: str, message: Any) -> None:
        match message:
            case m.Reserve():
                assert message.prefix is not None
                self.hold(message, len(message.prefix.blocks) * PREFIX_TOKENS)
            case m.Admit():
                whole = (message.prompt.num_tokens - 1) // PREFIX_TOKENS * PREFIX_TOKENS
                self.hold(message, 0 if message.sampling.prompt_logprobs is not None else whole)
            case m.Cancel():
                self.ended.add(message.request)
                self.release(message.request)
            case m.StopChoice() if message.request in self.runs:
                self.runs[message.request].choices.pop(message.choice, None)
            case m.ItemMoved() if message.request in self.runs:
                self.pull(message.request, message.item, message.encoder)
            case m.EmbeddingData() if message.request in self.runs:
                self.runs[message.request].left.pop(message.item.index, None)
            case m.RowsLost() if message.request in self.runs:
                if message.item.index in self.runs[message.request].left:
                    self.say(message)
            case m.HandOff() if message.request in self.runs:
                run = self.runs[message.request]
                run.length, run.started = len(message.token_ids), True
                first = message.first_index + 1
                run.choices = {choice: first for choice, _ in message.choices}
                run.admit = self.crowd.admits[message.request]
                self.say(m.HandedOver(request=message.request), sender)
            case m.HandedOver():
                self.release(message.request)

    def hold(self, message: m.Reserve | m.Admit, most_cached: int) -> None:
        key, num, prefix = message.request, message.num_tokens, message.prefix
        if key in self.ended or key in self.runs:
            return
        if num > self.room:
            never = num > self.member.kv_tokens
            self.owes_room |= not never
            self.say(m.Refused(request=key, reason="full", never=never))
            return
        assert prefix is not None
        known = [block in self.cache for block in prefix.blocks]
        cached = min(most_cached, [*known, False].index(False) * PREFIX_TOKENS)
        run = self.runs[key] = Run(num)
        if isinstance(message, m.Reserve):
            self.say(m.Reserved(request=key, cached_tokens=cached))
            return
        self.say(m.Admitted(request=key, cached_tokens=cached))
        run.admit = self.crowd.admits[key] = message
        self.cache |= set(prefix.blocks)
        choices = range(message.sampling.first_choice, message.sampling.first_choice + 3)
        run.choices = {c: message.first_index for c in choices[: message.sampling.n]}
        for item, offset in zip(message.prompt.items, message.prompt.offsets, strict=True):
            if offset + ROWS > cached:
                run.left[item.item.index] = item
                if item.encoder:
                    self.pull(key, item.item, item.encoder)

    def pull(self, key: RequestKey, item: ItemKey, encoder: str) -> None:
        run = self.runs[key]
        if item.index in run.left:
            run.left[item.index] = replace(run.left[item.index], item=item, encoder=encoder)
            self.say(m.PullRows(request=key, item=item, first_row=0, num_rows=ROWS), encoder)

    def encoder_died(self, name: str) -> None:
        for key, run in self.runs.items():
            for item in run.left.values():
                if item.encoder == name:
                    self.say(m.RowsLost(request=key, item=item.item, reason="died"))

    def release(self, key: RequestKey) -> None:
        if self.runs.pop(key, None) is not None and self.owes_room:
            self.owes_room = False
            self.say(m.Room(free_tokens=self.room))

    def step(self) -> None:
        """Something for every request that can go on."""
        for key, run in list(self.runs.items()):
            if key in self.runs and run.admit is not None and not run.left:
                self.decode(key, run, run.admit) if run.started else self.prefill(key, run)

    def prefill(self, key: RequestKey, run: Run) -> None:
        admit = run.admit
        assert admit is not None
        token_ids = admit.prompt.token_ids()
        told = token_ids[len(token_ids) - admit.first_index :]
        assert told == [token_of(admit.sampling.first_choice, i) for i in range(len(told))]
        if admit.sampling.prompt_logprobs is not None:
            scores = tuple(TokenLogprobs(logprob=-i) for i in range(1, len(token_ids)))
            self.say(m.PromptLogprobs(request=key, first_token=1, logprobs=scores))
        run.length, run.started = len(token_ids), True
        self.emit(key, run, admit)
        if admit.decode is None or not run.choices:
            return
        run.admit = None  # decode goes on; the blocks stay until it has them
        state = m.HandOff(
            request=key,
            token_ids=tuple(token_ids),
            choices=tuple((c, token_of(c, admit.first_index)) for c in run.choices),
            position_delta=0,
            sampling=admit.sampling,
            first_index=admit.first_index,
        )
        self.say(state, admit.decode)

    def decode(self, key: RequestKey, run: Run, admit: m.Admit) -> None:
        run.length += len(run.choices)
        while run.length > run.size and key in self.runs:
            if self.room > 0:
                run.size += 1
            else:
                self.preempt(list(self.runs)[-1])
        if key in self.runs:
            self.emit(key, run, admit)

    def preempt(self, youngest: RequestKey) -> None:
        self.ended.add(youngest)
        self.release(youngest)
        failed = m.RequestFailed(request=youngest, status=429, code="overloaded", reason="full")
        self.say(failed)

    def emit(self, key: RequestKey, run: Run, admit: m.Admit) -> None:
        runs = []
        for choice, index in list(run.choices.items()):
            last = index == admit.sampling.max_tokens - 1
            run.choices[choice] += 1
            reason = FinishReason.LENGTH if last else None
            runs.append(
                TokenRun(
                    request=key,
                    first_index=index,
                    token_ids=(token_of(choice, index),),
                    finish_reason=reason,
                    choice=choice,
                )
            )
            if last:
                del run.choices[choice]
        if runs:
            self.say(m.Tokens(runs=tuple(runs)))


@dataclass
class Job:
    """An item at its encoder. `runs`: nothing keeps its tower."""

    content: bytes
    runs: bool
    ready: bool = False
    pulls: list[tuple[str, m.PullRows]] = field(default_factory=list)


class Encoder:
    """An encode worker."""

    def __init__(self, crowd: Crowd, member: Member) -> None:
        self.crowd = crowd
        self.member = member
        self.jobs: dict[ItemKey, Job] = {}
        self.ended: set[ItemKey] = set()

    def say(self, message: Any, to: str = GATEWAY) -> None:
        self.crowd.post(self.member.name, to, message)

    def handle(self, sender: str, message: Any) -> None:
        job = self.jobs.get(message.item) if hasattr(message, "item") else None
        match message:
            case m.EncodeItem() if message.item not in self.ended:
                content = self.crowd.source(message.item)
                self.jobs[message.item] = Job(content, not message.hold)
                found = layout(ROWS, content=content)
                self.say(m.LayoutReady(item=message.item, layout=found))
            case m.RunTower() if job is not None:
                job.runs = True
            case m.DropItem():
                self.ended.add(message.item)
                self.jobs.pop(message.item, None)
                for peer, pull in job.pulls if job is not None else ():
                    self.lost(peer, pull)
            case m.PullRows() if job is None:
                self.lost(sender, message)
            case m.PullRows() if job is not None:
                job.pulls.append((sender, message))
                job.runs = True

    def lost(self, peer: str, pull: m.PullRows) -> None:
        self.say(m.RowsLost(request=pull.request, item=pull.item, reason="gone"), peer)

    def step(self) -> None:
        for item, job in self.jobs.items():
            if job.runs:
                if not job.ready:
                    self.crowd.towers += 1
                    self.say(m.ItemDone(item=item))
                job.ready = True
                while job.pulls:
                    peer, pull = job.pulls.pop()
                    part = m.EmbeddingData(
                        request=pull.request,
                        item=pull.item,
                        first_row=0,
                        num_rows=ROWS,
                        payload=m.Payload(dtype="float32", shape=(ROWS, 1), nbytes=4 * ROWS),
                    )
                    self.say(part, peer)


@dataclass
class Seen:
    """What a client asked and has got."""

    number: int
    priority: int
    sources: tuple[bytes, ...]
    sampling: SamplingParams
    prompt: int = 0
    tokens: dict[int, list[int]] = field(default_factory=dict)
    scores: tuple[TokenLogprobs, ...] = ()
    unwanted: set[int] = field(default_factory=set)
    ended: bool = False
    left: bool = False
    error: EpdError | None = None

    @property
    def place(self) -> tuple[int, int]:
        """In the line; there are too few of them for priorities to fade."""
        return self.priority, self.number


class Crowd:
    """One gateway, its workers and what is under way between them, a queue per pair."""

    def __init__(self, *members: Member) -> None:
        self.lanes: dict[tuple[str, str], deque[Any]] = {}
        self.nodes: dict[str, Language | Encoder] = {}
        self.seen: dict[str, Seen] = {}
        self.admits: dict[RequestKey, m.Admit] = {}
        self.aged: set[str] = set()
        self.deaths = 0
        self.blamed = 0
        self.towers = 0  # how many items were really encoded
        self.membership = Membership({})
        self.owner = Ownership(self.membership, Placement(self.membership), 1000, root_of)
        for member in members:
            self.join(member)

    # ---- what a test does

    def join(self, member: Member) -> None:
        kind = Encoder if Stage.ENCODE in member.stages else Language
        self.nodes[member.name] = kind(self, member)
        self.membership.join(member, {"protocol": str(m.PROTOCOL_VERSION)})
        self.do(self.owner.room())

    def restart(self, name: str) -> None:
        """A worker dies, which everybody knows at once, and comes back empty."""
        self.deaths += 1
        member = self.nodes[name].member
        self.lanes = {lane: queue for lane, queue in self.lanes.items() if name not in lane}
        self.membership.leave(name, member.incarnation)
        again = replace(member, incarnation=f"{member.incarnation}'")
        self.nodes[name] = type(self.nodes[name])(self, again)
        self.membership.join(again, {"protocol": str(m.PROTOCOL_VERSION)})
        self.do(self.owner.worker_lost(name))
        for node in self.nodes.values():
            if isinstance(node, Language):
                node.encoder_died(name)

    def ask(
        self,
        text: int,
        sources: tuple[bytes, ...],
        n: int,
        num_tokens: int,
        *,
        scored: bool,
        priority: int = 0,
    ) -> None:
        sampling = SamplingParams(n=n, max_tokens=num_tokens, prompt_logprobs=0 if scored else None)
        request_id = f"r{len(self.seen)}"
        self.seen[request_id] = Seen(len(self.seen), priority, sources, sampling)
        submission = Submission(
            request_id=request_id,
            text=((1,) * text, *[()] * len(sources)),
            items=tuple(
                ItemJob(modality=Modality.IMAGE, url=None, text_before="", source=source)
                for source in sources
            ),
            sampling=sampling,
            priority=priority,
        )
        self.do(self.owner.submit(submission))

    def leave(self, request_id: str) -> None:
        seen = self.seen[request_id]
        if not seen.ended:
            seen.ended = seen.left = True
            self.do(self.owner.cancel(request_id))

    def unwant(self, request_id: str, choice: int) -> None:
        seen = self.seen[request_id]
        if not seen.ended and choice < seen.sampling.n:
            seen.unwanted.add(choice)
            self.do(self.owner.end_choice(request_id, choice))
            seen.ended = not self.owner.owns(request_id)

    def evict(self) -> None:
        for node in self.nodes.values():
            if isinstance(node, Language):
                node.cache.clear()

    def move(self, lane: tuple[str, str]) -> None:
        """Deliver the head of one queue."""
        sender, to = lane
        message = self.lanes[lane].popleft()
        if not self.lanes[lane]:
            del self.lanes[lane]
        if to == GATEWAY:
            self.hear(sender, message)
        else:
            self.nodes[to].handle(sender, message)

    def settle(self) -> None:
        """Until nothing moves any more."""
        for _ in range(3000):
            for lane in list(self.lanes):
                self.move(lane)
            for node in self.nodes.values():
                node.step()
            if not self.lanes:
                return
        raise AssertionError("never comes to rest")

    # ---- the inside

    def post(self, sender: str, to: str, message: Any) -> None:
        self.lanes.setdefault((sender, to), deque()).append(message)

    def source(self, item: ItemKey) -> bytes:
        return self.seen[asked_as(item.request_id)].sources[item.index]

    def hear(self, sender: str, message: Any) -> None:
        if isinstance(message, m.Admitted):
            self.aged.discard(message.request.request_id)
        if isinstance(message, m.Refused):
            holding = m.Holding(requests=(message.request,), items=())
            if self.owner.holding(sender, holding) == []:
                self.aged.add(message.request.request_id)
        told = hear(self.owner, sender, message)
        assert told is not None, message
        self.do(told)

    def do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Tell(to, message):
                    if isinstance(message, m.Reserve) or (
                        isinstance(message, m.Admit) and message.decode is None
                    ):
                        self.nobody_is_overtaken(message.request.request_id)
                    self.post(GATEWAY, to, message)
                case Accepted(request_id, num_tokens):
                    self.seen[request_id].prompt = num_tokens
                case Emit():
                    self.emitted(instruction)
                case Failed(request_id, error):
                    assert not self.seen[request_id].ended
                    self.seen[request_id].ended, self.seen[request_id].error = True, error

    def emitted(self, emit: Emit) -> None:
        seen = self.seen[emit.request_id]
        stream = seen.tokens.setdefault(emit.run.choice, [])
        assert not seen.ended and emit.run.choice not in seen.unwanted
        assert emit.run.first_index == len(stream)
        assert (emit.opening is None) is any(seen.tokens.values())
        stream += emit.run.token_ids
        seen.ended = emit.last
        if emit.opening is not None:
            seen.scores = emit.opening.prompt_logprobs

    def nobody_is_overtaken(self, request_id: str) -> None:
        """Nothing is asked for while a request that was refused waits, and is older or of a lower
        priority. But for those that lost a worker, which go first, or wait for each other alone.
        """
        parent, requests = asked_as(request_id), self.owner._attempts._requests
        if requests[request_id].deaths:
            return
        if parent != request_id and parent in self.aged:  # its choices wait one by one by now
            self.aged.discard(parent)
            self.aged.add(request_id)
        place = self.seen[parent].place
        bereaved = {asked_as(name) for name, request in requests.items() if request.deaths}
        waiting = [o for o in self.aged if self.waits(o) and asked_as(o) not in bereaved]
        assert all(self.seen[asked_as(o)].place >= place for o in waiting)

    def waits(self, request_id: str) -> bool:
        """A request, or the part that makes one choice of it, has not ended."""
        parent, _, choice = request_id.partition("/")
        unwanted = bool(choice) and int(choice) in self.seen[parent].unwanted
        return self.owner.owns(parent) and not unwanted

    def check_all_done(self) -> None:
        """Every client has all that it still wanted, and nobody holds anything."""
        for request_id, seen in self.seen.items():
            assert seen.ended, f"{request_id} hangs"
            if seen.error is not None:  # more deaths met it than chance alone should bring
                assert "workers died with" in seen.error.message
                self.blamed += 1
                continue
            for choice, stream in seen.tokens.items():
                assert stream == [token_of(choice, i) for i in range(len(stream))]
            if not seen.left:
                wanted = set(range(seen.sampling.n)) - seen.unwanted
                full = {c for c, s in seen.tokens.items() if len(s) == seen.sampling.max_tokens}
                assert wanted <= full
                scored = seen.sampling.prompt_logprobs is not None and seen.tokens
                assert len(seen.scores) == (seen.prompt - 1 if scored else 0)
        assert self.blamed < max(1, self.deaths), "one request for one death, and not for the first"
        assert self.owner.idle and self.owner.num_waiting == 0
        for node in self.nodes.values():
            held = node.runs if isinstance(node, Language) else node.jobs
            assert not held, node.member.name


def crowd(kv_tokens: int, *, fused_too: bool = False, pairs: int = 1) -> Crowd:
    """Two encoders and workers of one size."""
    members = [encode("E1"), encode("E2")]
    for k in range(pairs):
        members += [prefill(f"P{k}", kv_tokens=kv_tokens), decode(f"D{k}", kv_tokens=kv_tokens)]
    if fused_too:
        members.append(fused(kv_tokens=kv_tokens))
    return Crowd(*members)
