"""The table of workers. It is the only source of addresses in the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from epd.types import Member, Modality, Stage
from epd.wire.messages import PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Joined:
    """The worker is in the table; `replaced` is a previous incarnation of the same name."""

    member: Member
    replaced: Member | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """It is not, and this is what differs."""

    reason: str


class Membership:
    """Members by name. `expected` is the gateway's own fingerprint: what a worker must agree with.

    Keys that only one side has (a worker's processor settings, say) are not compared with the
    gateway, but make the worker's pool: rows and KV move only between equal pools.
    """

    def __init__(self, expected: dict[str, str]) -> None:
        self._expected = expected
        self._members: dict[str, Member] = {}
        self._lost: dict[str, int] = {}

    def join(self, member: Member, fingerprint: dict[str, str], lost: int = 0) -> Joined | Rejected:
        """A worker registered; again with the same incarnation is harmless.

        Unless `lost` has changed: then it has given back what it held for this gateway, as a
        restarted one has.
        """
        if fingerprint.get("protocol") != str(PROTOCOL_VERSION):
            theirs = fingerprint.get("protocol")
            return Rejected(f"protocol: gateway {PROTOCOL_VERSION}, {member.name} {theirs}")
        for key, ours in self._expected.items():
            theirs = fingerprint.get(key)
            if theirs != ours:
                return Rejected(f"{key}: gateway {ours}, {member.name} {theirs}")
        previous = self._members.get(member.name)
        self._members[member.name] = member
        known = self._lost.get(member.name, lost)
        self._lost[member.name] = lost
        same = previous is not None and previous.incarnation == member.incarnation
        same = same and known == lost
        return Joined(member, None if same else previous)

    def leave(self, name: str, incarnation: str) -> Member | None:
        """A worker left or died; a message about an earlier incarnation changes nothing."""
        member = self._members.get(name)
        if member is None or member.incarnation != incarnation:
            return None
        self._lost.pop(name, None)
        return self._members.pop(name)

    def get(self, name: str) -> Member | None:
        """The member of this name."""
        return self._members.get(name)

    @property
    def members(self) -> tuple[Member, ...]:
        """Everybody, in order of joining."""
        return tuple(self._members.values())

    def serving(self, stage: Stage, modalities: Iterable[Modality] = ()) -> list[Member]:
        """Who serves a stage, and items that need all of these modalities at once."""
        return [
            member
            for member in self._members.values()
            if stage in member.stages and set(modalities) <= set(member.modalities)
        ]

    def decoders(self, prefill: Member) -> list[Member]:
        """Who can decode what this worker prefills: itself if it is fused, else its pool."""
        if Stage.DECODE in prefill.stages:
            return [prefill]
        return [
            member
            for member in self.serving(Stage.DECODE)
            if member.pool == prefill.pool and Stage.PREFILL not in member.stages
        ]

    @property
    def complete(self) -> bool:
        """Prefill and decode are served in one pool, so text can be answered."""
        return any(self.decoders(prefill) for prefill in self.serving(Stage.PREFILL))
