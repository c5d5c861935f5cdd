"""Which workers serve a request: the least loaded of those that can, inside one pool."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from epd.cluster.membership import Membership
from epd.errors import Unavailable
from epd.types import Member, Modality, Stage


@dataclass(frozen=True, slots=True)
class Placed:
    """`decode` None: the prefill worker is fused and keeps the request.

    `handed_over`: decode has all it needs, so the request outlives its prefill worker.
    """

    prefill: str
    decode: str | None
    handed_over: bool = False

    @property
    def workers(self) -> tuple[str, ...]:
        """Both, or the one."""
        return (self.prefill,) if self.decode is None else (self.prefill, self.decode)

    def needs(self, name: str) -> bool:
        """Whether the request ends with this worker."""
        return name in self.workers and not (self.handed_over and name == self.prefill)


class Placement:
    """Counts what was sent where and has not ended; ties go to the worker used longest ago."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._load: Counter[str] = Counter()
        self._used: dict[str, int] = {}
        self._clock = 0

    def encoder(self, modality: Modality) -> str:
        """A worker for one item; Unavailable names the modality."""
        members = self._membership.serving(Stage.ENCODE, modality)
        if not members:
            raise Unavailable(f"no encode worker serves {modality.value}")
        return self._least(members)

    def language(self, num_tokens: int, refused_by: set[str]) -> Placed | None:
        """Workers for one prompt with KV for `num_tokens`, or None when all of them have refused.

        Unavailable names the stage that nobody serves.
        """
        prefills = self._membership.serving(Stage.PREFILL)
        if not prefills:
            raise Unavailable("no prefill worker is alive")
        prefill = self._choose(prefills, num_tokens, refused_by)
        if prefill is None:
            return None
        if Stage.DECODE in prefill.stages:
            return Placed(prefill.name, None)
        decodes = [m for m in self._membership.serving(Stage.DECODE) if m.pool == prefill.pool]
        if not decodes:
            raise Unavailable("no decode worker is alive")
        decode = self._choose(decodes, num_tokens, refused_by)
        return None if decode is None else Placed(prefill.name, decode.name)

    def _choose(
        self, members: list[Member], num_tokens: int, refused_by: set[str]
    ) -> Member | None:
        """The least loaded that has not refused; too small a pool only if all are."""
        willing = [m for m in members if m.name not in refused_by]
        roomy = [m for m in willing if m.kv_tokens >= num_tokens] or willing
        return self._membership.get(self._least(roomy)) if roomy else None

    def _least(self, members: list[Member]) -> str:
        def rank(member: Member) -> tuple[int, int]:
            return self._load[member.name], self._used.get(member.name, 0)

        return min(members, key=rank).name

    def began(self, name: str) -> None:
        """Something was sent to this worker."""
        self._clock += 1
        self._used[name] = self._clock
        self._load[name] += 1

    def ended(self, name: str) -> None:
        """It has ended there."""
        self._load[name] -= 1
        if self._load[name] <= 0:
            del self._load[name]

    def gone(self, name: str) -> None:
        """The worker left; a successor of its name starts with nothing."""
        self._load.pop(name, None)
        self._used.pop(name, None)
