"""The workers as an operator sees them: roles, state, pool, load, caches; never addresses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from epd.cluster import Membership
from epd.transfer.ways import Route, route
from epd.types import Member, Stage

VERSION = ("weights", "dtype", "transformers")
"""Parts of a fingerprint in which pools differ most often."""


_OF_ENCODERS = (
    "items",
    "queued_items",
    "rows_bytes",
    "cache_bytes",
    "cache_most_bytes",
    "cache_hits",
    "cache_misses",
)


class Overview:
    """What workers said of themselves last."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._joined_at: dict[str, float] = {}
        self._gauges: dict[str, Mapping[str, int]] = {}

    def joined(self, member: Member, now: float) -> None:
        """It is in the table from now on."""
        self._joined_at[member.name] = now

    def reported(self, member: Member, gauges: Mapping[str, int]) -> None:
        """A heartbeat was answered."""
        self._gauges[member.name] = gauges

    def gone(self, member: Member) -> None:
        """It died or left, or another has its name now."""
        self._joined_at.pop(member.name, None)
        self._gauges.pop(member.name, None)

    def rows(self, now: float) -> list[dict[str, Any]]:
        """One per worker, by name."""
        members = sorted(self._membership.members, key=lambda member: member.name)
        return [self._row(member, now) for member in members]

    def _row(self, member: Member, now: float) -> dict[str, Any]:
        gauges = self._gauges.get(member.name, {})
        fingerprint = self._membership.fingerprint(member.name)
        draining = member in self._membership.draining
        return {
            "name": member.name,
            "stages": [stage.value for stage in member.stages],
            "state": "draining" if draining else "serving",
            "modalities": [modality.value for modality in member.modalities],
            "pool": short(member.pool),
            "version": {key: fingerprint[key] for key in VERSION if key in fingerprint},
            **_load(member, gauges),
            "step_age_ms": gauges.get("step_age_ms", 0),
            "age_s": round(now - self._joined_at.get(member.name, now), 1),
            "device": "cpu" if member.gpu is None else member.gpu.device,
            "transfers": self._transfers(member),
            "host": member.host,
            "pid": member.pid,
        }

    def _transfers(self, sender: Member) -> dict[str, str]:
        """How tensors go from this worker to each one that it hands over to."""
        return {
            member.name: "in process" if _together(sender, member) else _told(route(sender, member))
            for member in self._membership.members
            if member.pool == sender.pool and _hands_over(sender, member)
        }


def _together(one: Member, other: Member) -> bool:
    """Are both halves of one engine process?"""
    return (one.host, one.pid) == (other.host, other.pid)


def _told(found: Route) -> str:
    by_rank = f", {found.ranks} ranks each their own" if found.ranks > 1 else ""
    return f"{found.way.value}{by_rank}"


def _hands_over(sender: Member, receiver: Member) -> bool:
    if Stage.ENCODE in sender.stages:
        return Stage.PREFILL in receiver.stages
    return sender.stages == (Stage.PREFILL,) and receiver.stages == (Stage.DECODE,)


def _load(member: Member, gauges: Mapping[str, int]) -> dict[str, Any]:
    """An engine has both kinds."""
    found: dict[str, Any] = {}
    if Stage.ENCODE in member.stages:
        found = {name: gauges.get(name, 0) for name in _OF_ENCODERS}
    if member.stages == (Stage.ENCODE,):
        return found
    blocks = max(1, gauges.get("kv_blocks", 0))
    return found | {
        "requests": gauges.get("requests", 0),
        "attention": member.attention,
        "kv_tokens": member.kv_tokens,
        "kv_used": round(gauges.get("kv_blocks_used", 0) / blocks, 3),
        "kv_cached": round(gauges.get("kv_blocks_cached", 0) / blocks, 3),
    }


def short(pool: str) -> str:
    """A pool's name is its whole fingerprint; people want eight characters."""
    return hashlib.blake2b(pool.encode(), digest_size=4).hexdigest()
