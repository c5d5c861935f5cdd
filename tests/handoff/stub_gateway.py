"""The gateway of a simulated cluster: real ownership, and what its clients have seen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from epd.cluster import Accepted, Emit, Failed, Membership, Ownership, Placement, Tell, hear
from epd.errors import EpdError
from epd.prefix import prefix_root
from epd.types import ItemLayout, Member
from epd.wire import messages as m

if TYPE_CHECKING:
    from tests.handoff.simulation import Letter, Simulation


def root_of(salt: str) -> bytes:
    """KV may be reused."""
    return prefix_root({}, salt)


@dataclass
class Outcome:
    """What the client has seen."""

    gateway: str
    layouts: list[ItemLayout]
    wanted: int
    n: int
    scored: bool
    prompt: int = 0
    tokens: list[list[int]] = field(init=False)  # by choice
    finished: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    error: EpdError | None = None
    given_up: bool = False  # cancelled, or its gateway died

    def __post_init__(self) -> None:
        self.tokens = [[] for _ in range(self.n)]

    @property
    def answered(self) -> bool:
        """Every choice came to its end, or to where the client had enough of it."""
        return len(self.finished | self.stopped) == self.n

    @property
    def ended(self) -> bool:
        return self.answered or self.error is not None or self.given_up


class SimGateway:
    """One gateway: its own table, its own requests."""

    def __init__(self, sim: Simulation, name: str) -> None:
        self.sim = sim
        self.name = name
        self.incarnation = sim.next_incarnation()
        self.membership = Membership({})
        self.ownership = Ownership(self.membership, Placement(self.membership), 1000, root_of)

    def knows(self, name: str, incarnation: int) -> bool:
        member = self.membership.get(name)
        return member is not None and member.incarnation == str(incarnation)

    def handle(self, letter: Letter) -> None:
        sender, message = letter.sender, letter.message
        match message:
            case m.Register():
                self.join(message.member)
            case m.Leaving():
                self.lose(sender, letter.incarnation)
            case _:
                told = hear(self.ownership, sender, message)
                assert told is not None, message
                self.do(told)

    def join(self, member: Member) -> None:
        joined = self.membership.join(member, {"protocol": str(m.PROTOCOL_VERSION)})
        self.publish()
        if getattr(joined, "replaced", None) is not None:
            self.do(self.ownership.worker_lost(member.name))
        self.do(self.ownership.room())

    def lose(self, name: str, incarnation: int) -> None:
        if self.membership.leave(name, str(incarnation)) is not None:
            self.publish()
            self.do(self.ownership.worker_lost(name))

    def publish(self) -> None:
        table = m.Members(members=self.membership.members)
        for member in table.members:
            self.tell(member.name, table)

    def tell(self, to: str, message: Any) -> None:
        member = self.membership.get(to)
        if member is not None:
            number = int(member.incarnation)
            self.sim.post(self.name, self.incarnation, to, number, message)

    @staticmethod
    def emit(outcome: Outcome, emit: Emit) -> None:
        run = emit.run
        assert not outcome.ended and run.choice not in outcome.finished | outcome.stopped
        assert (emit.opening is not None) is not any(outcome.tokens)
        if emit.opening is not None and outcome.scored:
            scores = [found.logprob for found in emit.opening.prompt_logprobs]
            assert scores == [-float(token) for token in range(1, outcome.prompt)]
        assert run.first_index == len(outcome.tokens[run.choice])
        outcome.tokens[run.choice] += run.token_ids
        if run.finish_reason is not None:
            outcome.finished.add(run.choice)
        assert emit.last is outcome.answered

    def held(self, message: Any) -> Any:
        """Some items are to be held, no suspects; their first pull, or nobody, asks for them."""
        first = isinstance(message, m.EncodeItem) and message.item.attempt == 1
        if first and self.sim.chance(f"hold {message.item}"):
            return replace(message, hold=True)
        return message

    def do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Tell(to, message):
                    self.tell(to, self.held(message))
                case Emit(request_id):
                    self.emit(self.sim.outcomes[request_id], instruction)
                case Failed(request_id, error):
                    assert not self.sim.outcomes[request_id].ended
                    self.sim.outcomes[request_id].error = error
                case Accepted(request_id, num_prompt_tokens):
                    self.sim.outcomes[request_id].prompt = num_prompt_tokens
                case _:
                    raise AssertionError(instruction)
