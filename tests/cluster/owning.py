"""An `Ownership` over a table of members, and short ways to say its events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from epd.cluster import Emit, Failed, ItemJob, Ownership, Placement, Submission, Tell
from epd.cluster.attempts import RootOf
from epd.cluster.instructions import Instruction
from epd.errors import EpdError
from epd.prefix import prefix_root
from epd.types import (
    ItemKey,
    ItemLayout,
    Member,
    Modality,
    RequestKey,
    SamplingParams,
    TokenLogprobs,
)
from epd.wire import messages as m
from tests.cluster.samples import decode, encode, layout, prefill
from tests.cluster.test_membership import table

R = RequestKey("r", 1)
IMAGE_JOB = ItemJob(modality=Modality.IMAGE, url=None, text_before="")


class Gateway:
    """The table, the placement and the ownership of one gateway."""

    def __init__(
        self,
        *members: Member,
        max_context: int = 100,
        root_of: RootOf | None = None,
        max_wait_s: float = math.inf,
    ) -> None:
        self.membership = table(*members)
        self.placement = Placement(self.membership)
        self.owner = Ownership(self.membership, self.placement, max_context, root_of, max_wait_s)

    def submit(
        self,
        request_id: str = "r",
        *,
        items: int = 0,
        max_tokens: int = 10,
        text: int | tuple[int, ...] = 4,
        n: int = 1,
        prompt_logprobs: int | None = None,
        source: bytes = b"",
        salt: str = "",
        priority: int = 0,
        tells_prompt: bool = False,
        job: ItemJob = IMAGE_JOB,
        jobs: tuple[ItemJob, ...] = (),
    ) -> list[Instruction]:
        """A prompt of `text` tokens (or these) and so many items, images unless `job` says so."""
        jobs = jobs or (replace(job, source=source),) * items
        ids = (1,) * text if isinstance(text, int) else text
        sampling = SamplingParams(max_tokens=max_tokens, n=n, prompt_logprobs=prompt_logprobs)
        submission = Submission(
            request_id=request_id,
            text=(ids, *[()] * len(jobs)),
            items=jobs,
            sampling=sampling,
            cache_salt=salt,
            priority=priority,
            tells_prompt=tells_prompt,
        )
        return self.owner.submit(submission)

    def laid_out(
        self,
        encoder: str = "E",
        *,
        index: int = 0,
        attempt: int = 1,
        found: ItemLayout | None = None,
        request_id: str = "r",
    ) -> list[Instruction]:
        """LayoutReady for an item of a request."""
        key = ItemKey(request_id, index, attempt)
        return self.owner.layout(encoder, m.LayoutReady(item=key, layout=found or layout()))

    def reserved(
        self, sender: str = "D", request: RequestKey = R, *, cached: int = 0
    ) -> list[Instruction]:
        """Decode holds the blocks."""
        return self.owner.reserved(sender, m.Reserved(request=request, cached_tokens=cached))

    def admitted(
        self, sender: str = "P", request: RequestKey = R, *, cached: int = 0
    ) -> list[Instruction]:
        """Prefill holds the blocks."""
        return self.owner.admitted(sender, m.Admitted(request=request, cached_tokens=cached))

    def refused(
        self, sender: str, request: RequestKey = R, *, never: bool = False
    ) -> list[Instruction]:
        """A worker has no room."""
        message = m.Refused(request=request, reason="full", never=never)
        return self.owner.refused(sender, message)

    def failed(self, sender: str, status: int, request: RequestKey = R) -> list[Instruction]:
        """An attempt ended on a worker."""
        message = m.RequestFailed(request=request, status=status, code="c", reason="why")
        return self.owner.request_failed(sender, message)

    def lost(
        self, sender: str = "P", *, attempt: int = 1, request: RequestKey = R
    ) -> list[Instruction]:
        """Prefill says that item 0 is not at its encoder."""
        key = ItemKey("r", 0, attempt)
        return self.owner.rows_lost(sender, m.RowsLost(request=request, item=key, reason="evicted"))

    def dies(self, name: str) -> list[Instruction]:
        """The worker leaves the table."""
        left = self.membership.leave(name, "1")
        assert left is not None
        return self.owner.worker_lost(name)

    def leaves(self, name: str) -> list[Instruction]:
        """The worker says goodbye."""
        self.membership.leave(name, "1")
        return self.owner.worker_lost(name, left=True)

    def joins(self, member: Member) -> list[Instruction]:
        """A worker comes into the table."""
        self.membership.join(member, {"protocol": str(m.PROTOCOL_VERSION)})
        return self.owner.room()

    def emits(self, sender: str, *runs: Any) -> list[Instruction]:
        """Tokens come from a worker."""
        return self.owner.tokens(sender, runs)

    def scores(self, first: int, *logprobs: float, request: RequestKey = R) -> list[Instruction]:
        """Prefill computed a chunk of a prompt whose logprobs are wanted."""
        found = tuple(TokenLogprobs(logprob=logprob) for logprob in logprobs)
        message = m.PromptLogprobs(request=request, first_token=first, logprobs=found)
        return self.owner.prompt_logprobs(message)

    def running(self, request_id: str = "r", **shape: Any) -> RequestKey:
        """A request on P and D that has been admitted by both."""
        key = RequestKey(request_id, 1)
        self.submit(request_id, **shape)
        self.reserved(request=key)
        self.admitted(request=key)
        return key


def split(*more: Member, max_context: int = 100, root_of: RootOf | None = None) -> Gateway:
    """One worker per stage, and more."""
    members = (encode(), prefill(), decode(), *more)
    return Gateway(*members, max_context=max_context, root_of=root_of)


def root_of(salt: str) -> bytes:
    """The parent of first blocks."""
    return prefix_root({"weights": "w"}, salt)


def part(choice: int, attempt: int = 1) -> RequestKey:
    """A choice of request "r" that has become a request of its own."""
    return RequestKey(f"r/{choice}", attempt)


def one(instructions: Sequence[Instruction], kind: type[Any]) -> Any:
    """The only message of a kind."""
    ((_, message),) = told(instructions, kind)
    return message


def told(instructions: Sequence[Instruction], kind: type[Any]) -> list[tuple[str, Any]]:
    """The messages of one kind, with their receivers."""
    return [
        (i.to, i.message)
        for i in instructions
        if isinstance(i, Tell) and isinstance(i.message, kind)
    ]


def receivers(instructions: Sequence[Instruction], kind: type[Any]) -> list[str]:
    """Who gets messages of one kind."""
    return [to for to, _ in told(instructions, kind)]


def error(instructions: Sequence[Instruction]) -> EpdError:
    """How the one request failed."""
    (found,) = [i.error for i in instructions if isinstance(i, Failed)]
    return found


def emits(instructions: Sequence[Instruction]) -> list[Emit]:
    """What goes to the client."""
    return [i for i in instructions if isinstance(i, Emit)]


def emitted(instructions: Sequence[Instruction], choice: int = 0) -> list[int]:
    """The tokens of one choice that go to the client."""
    return [t for e in emits(instructions) if e.run.choice == choice for t in e.run.token_ids]


def cancels(*names: str, request: RequestKey = R) -> list[Instruction]:
    """What withdraws an attempt."""
    return [Tell(name, m.Cancel(request=request)) for name in names]


def reserve(request: RequestKey = R, num: int = 14, by: str = "P", to: str = "D") -> Tell:
    """Of a prompt of 4 tokens with 10 to come."""
    return Tell(to, m.Reserve(request=request, num_tokens=num, prefill=by))
