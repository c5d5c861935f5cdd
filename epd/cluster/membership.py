"""The table of workers. It is the only source of addresses in the cluster."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
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

    All else (its weights, a processor's settings) is not compared with the gateway, but makes the
    worker's pool: rows and KV move only between equal pools, and a new revision of a model is a
    pool that grows while the old one drains. `allow` has the operator's limits: parts of the
    fingerprint, and the values that they may have.
    """

    def __init__(
        self, expected: Mapping[str, str], allow: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._expected = expected
        self._allow = allow or {}
        self._members: dict[str, Member] = {}
        self._fingerprints: dict[str, dict[str, str]] = {}
        self._lost: dict[str, int] = {}
        self._draining: set[str] = set()

    def join(self, member: Member, fingerprint: dict[str, str], lost: int = 0) -> Joined | Rejected:
        """A worker registered; again with the same incarnation is harmless.

        Unless `lost` has changed: then it has given back what it held for this gateway, as a
        restarted one has.
        """
        differs = self._differs(member.name, fingerprint)
        if differs is not None:
            return Rejected(differs)
        previous = self._members.get(member.name)
        self._members[member.name] = member
        self._fingerprints[member.name] = fingerprint
        known = self._lost.get(member.name, lost)
        self._lost[member.name] = lost
        same = previous is not None and previous.incarnation == member.incarnation
        if not same:
            self._draining.discard(member.name)
        same = same and known == lost
        return Joined(member, None if same else previous)

    def leave(self, name: str, incarnation: str) -> Member | None:
        """A worker left or died; a message about an earlier incarnation changes nothing."""
        member = self._members.get(name)
        if member is None or member.incarnation != incarnation:
            return None
        self._lost.pop(name, None)
        self._draining.discard(name)
        del self._fingerprints[name]
        return self._members.pop(name)

    def drain(self, name: str) -> bool:
        """The member takes nothing new from now on, until it leaves. False: that is no news."""
        if name in self._draining or name not in self._members:
            return False
        self._draining.add(name)
        return True

    @property
    def draining(self) -> list[Member]:
        """Those that take nothing new."""
        return [member for member in self._members.values() if member.name in self._draining]

    def fingerprint(self, name: str) -> dict[str, str]:
        """What a member said of itself when it joined."""
        return self._fingerprints[name]

    def _differs(self, name: str, fingerprint: dict[str, str]) -> str | None:
        """Why such a worker may not join."""
        must = {"protocol": str(PROTOCOL_VERSION), **self._expected}
        for key, ours in must.items():
            theirs = fingerprint.get(key)
            if theirs != ours:
                return f"{key}: gateway {ours}, {name} {theirs}"
        for key, values in self._allow.items():
            theirs = fingerprint.get(key)
            if theirs not in values:
                return f"{key}: gateway allows {', '.join(values)}, {name} {theirs}"
        return None

    def get(self, name: str) -> Member | None:
        """The member of this name."""
        return self._members.get(name)

    @property
    def members(self) -> tuple[Member, ...]:
        """Everybody, in order of joining."""
        return tuple(self._members.values())

    def serving(
        self,
        stage: Stage,
        modalities: Iterable[Modality] = (),
        pools: Container[str] | None = None,
    ) -> list[Member]:
        """Who serves a stage, and items that need all of these modalities at once.

        Draining members only for work that is bound to `pools` where nobody else is left: a
        request that has begun there is not to fail because its pool goes.
        """
        able = [
            member
            for member in self._members.values()
            if stage in member.stages
            and set(modalities) <= set(member.modalities)
            and (pools is None or member.pool in pools)
        ]
        staying = [member for member in able if member.name not in self._draining]
        return staying or (able if pools is not None else [])

    def decoders(self, prefill: Member, pools: Container[str] | None = None) -> list[Member]:
        """Who can decode what this worker prefills: itself if it is fused, else its pool."""
        if Stage.DECODE in prefill.stages:
            return [prefill]
        return [
            member
            for member in self.serving(Stage.DECODE, pools=pools)
            if member.pool == prefill.pool and Stage.PREFILL not in member.stages
        ]

    @property
    def complete(self) -> bool:
        """Prefill and decode are served in one pool, so text can be answered."""
        return any(self.decoders(prefill) for prefill in self.serving(Stage.PREFILL))
