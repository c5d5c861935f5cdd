"""The table of workers. It is the only source of addresses in the cluster."""

from __future__ import annotations

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

    def join(self, member: Member, fingerprint: dict[str, str]) -> Joined | Rejected:
        """A worker registered; again with the same incarnation is harmless."""
        if fingerprint.get("protocol") != str(PROTOCOL_VERSION):
            theirs = fingerprint.get("protocol")
            return Rejected(f"protocol: gateway {PROTOCOL_VERSION}, {member.name} {theirs}")
        for key, ours in self._expected.items():
            theirs = fingerprint.get(key)
            if theirs != ours:
                return Rejected(f"{key}: gateway {ours}, {member.name} {theirs}")
        previous = self._members.get(member.name)
        self._members[member.name] = member
        same = previous is not None and previous.incarnation == member.incarnation
        return Joined(member, None if same else previous)

    def leave(self, name: str, incarnation: str) -> Member | None:
        """A worker left or died; a message about an earlier incarnation changes nothing."""
        member = self._members.get(name)
        if member is None or member.incarnation != incarnation:
            return None
        return self._members.pop(name)

    def get(self, name: str) -> Member | None:
        """The member of this name."""
        return self._members.get(name)

    @property
    def members(self) -> tuple[Member, ...]:
        """Everybody, in order of joining."""
        return tuple(self._members.values())

    def serving(self, stage: Stage, modality: Modality | None = None) -> list[Member]:
        """Who serves a stage (and a modality)."""
        return [
            member
            for member in self._members.values()
            if stage in member.stages and (modality is None or modality in member.modalities)
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
