"""Which encode worker gets an item: the one that would be done first, or the one that has its rows.

What a worker has to do is what was sent to it and is not done, and what others have sent it, by its
own word. How fast it is, is learnt from its reports.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from epd.cluster.costs import cost
from epd.cluster.membership import Membership
from epd.cluster.recent import Recent
from epd.cluster.submission import ItemJob
from epd.errors import Unavailable
from epd.types import ItemKey, Member, Modality, Stage

PATIENCE = 4
"""An item waits where its rows should be for as long as encoding it elsewhere takes so often."""

HOMES = 1 << 14
"""Pairs of an item and the worker that had it, which are remembered."""

FADE = 0.8
"""What one report leaves of the weight of earlier ones."""

Needs = tuple[Modality, ...]
"""What one encode worker must serve to take an item."""

Home = tuple[str, bytes, str, str]
"""Salt and source of an item, name and incarnation of a worker."""


@dataclass(slots=True)
class _Worker:
    """`sent`: the cost of what was sent and is not done. `foreign`: what others should have there.

    `work` and `busy_ms` are what it did and how long that took, recent reports first.
    """

    sent: dict[ItemKey, int] = field(default_factory=dict)
    foreign: tuple[int, int] = (0, 0)
    reported: tuple[int, int] = (0, 0)
    work: float = 0.0
    busy_ms: float = 0.0
    used: int = 0

    @property
    def load(self) -> int:
        """A report that crossed a message of ours is not to count: what others have lasts."""
        return sum(self.sent.values()) + min(self.foreign)

    @property
    def speed(self) -> float | None:
        """Cost per millisecond, once something was measured."""
        return self.work / self.busy_ms if self.work and self.busy_ms else None


class Encoders:
    """What is known of every encode worker."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._workers: dict[str, _Worker] = {}
        self._homes: Recent[Home] = Recent(HOMES)
        self._clock = 0

    def serving(self, needs: Needs, pools: set[str] | None = None) -> list[Member]:
        """Who could take an item; Unavailable names the modality that nobody serves."""
        found = self._membership.serving(Stage.ENCODE, needs, pools)
        if not found:
            wanted = " together with ".join(_word(modality) for modality in needs)
            raise Unavailable(f"no encode worker serves {wanted}")
        return found

    def choose(
        self, job: ItemJob, salt: str, pools: set[str], but: Collection[str] = ()
    ) -> Member | None:
        """A worker for one item, or None when all that could take it are in `but`."""
        members = [m for m in self.serving(job.needs, pools) if m.name not in but]
        if not members:
            return None
        speeds = self._speeds(members)
        takes = cost(job)

        def done_after(member: Member) -> float:
            return (self._of(member).load + takes) / speeds[member.name]

        def rank(member: Member) -> tuple[float, int, int]:
            worker = self._of(member)
            return done_after(member), len(worker.sent), worker.used

        best = min(members, key=rank)
        homes = [m for m in members if self._is_home(m, job, salt)]
        if homes:
            home = min(homes, key=rank)
            longest = done_after(best) + (PATIENCE - 1) * takes / speeds[best.name]
            if self._of(home).load / speeds[home.name] <= longest:
                return home
        return best

    def sent(self, member: Member, item: ItemKey, job: ItemJob, salt: str) -> None:
        """The item goes to this worker, and its rows will be there."""
        worker = self._of(member)
        known = self._is_home(member, job, salt)
        worker.sent[item] = 1 if known else cost(job)
        self._clock += 1
        worker.used = self._clock
        if job.source:
            self._homes.touch([(salt, job.source, member.name, member.incarnation)])

    def ended(self, name: str, item: ItemKey) -> None:
        """The item needs nothing of this worker any more. Harmless when repeated."""
        worker = self._workers.get(name)
        if worker is not None:
            worker.sent.pop(item, None)

    def not_there(self, name: str, job: ItemJob, salt: str) -> None:
        """The worker refused or lost the item, so it has no rows of equal ones."""
        if (member := self._membership.get(name)) is not None:
            self._homes.discard([(salt, job.source, name, member.incarnation)])

    def reported(self, name: str, gauges: Mapping[str, int]) -> None:
        """A worker said what it has to do, and what it has done since it was started."""
        member = self._membership.get(name)
        if member is None or Stage.ENCODE not in member.stages:
            return
        worker = self._of(member)
        foreign = max(0, gauges.get("queued_cost", 0) - sum(worker.sent.values()))
        worker.foreign = (worker.foreign[1], foreign)
        now = gauges.get("work_cost", 0), gauges.get("work_ms", 0)
        work, busy_ms = (new - old for new, old in zip(now, worker.reported, strict=True))
        worker.reported = now
        if work > 0 and busy_ms > 0:
            worker.work = FADE * worker.work + work
            worker.busy_ms = FADE * worker.busy_ms + busy_ms

    def gone(self, name: str) -> None:
        """The worker left; a successor of its name starts with nothing."""
        self._workers.pop(name, None)

    def load(self, name: str) -> int:
        """What a worker has to do, as far as is known."""
        worker = self._workers.get(name)
        return 0 if worker is None else worker.load

    def _of(self, member: Member) -> _Worker:
        return self._workers.setdefault(member.name, _Worker())

    def _speeds(self, members: Iterable[Member]) -> dict[str, float]:
        """Who was not measured is as fast as the others are on average."""
        found = {member.name: self._of(member).speed for member in members}
        known = [speed for speed in found.values() if speed is not None]
        usual = sum(known) / len(known) if known else 1.0
        return {name: usual if speed is None else speed for name, speed in found.items()}

    def _is_home(self, member: Member, job: ItemJob, salt: str) -> bool:
        """Equal items of the same tenant were sent there."""
        home = (salt, job.source, member.name, member.incarnation)
        return bool(job.source) and home in self._homes


def _word(modality: Modality) -> str:
    return modality.value.replace("_", " ")
