"""Membership and leases: gateway and workers, and workers among themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

from epd.types import ItemKey, Member, RequestKey
from epd.wire.messages.registry import message


@message("cluster.register")
@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Worker -> gateway: here I am. Repeated until answered by Welcome or RegisterRefused.

    `via` is the address that the worker knows the gateway by; Welcome says it back. `lost` counts
    by name how often it took a gateway for dead: what it held for that one is gone each time.
    `draining`: it takes nothing new, and leaves when it is Released.
    """

    member: Member
    fingerprint: dict[str, str]
    via: str
    lost: dict[str, int] = field(default_factory=dict)
    draining: bool = False


@message("cluster.welcome")
@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """Gateway -> worker: you are in the table."""

    gateway: str
    incarnation: str
    via: str


@message("cluster.register_refused")
@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRefused:
    """Gateway -> worker: you are not, and this is what differs. The worker exits with it."""

    reason: str


@message("cluster.members")
@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Gateway -> worker, on every change: the whole table. The only source of addresses."""

    members: tuple[Member, ...]


@message("cluster.heartbeat")
@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Gateway -> worker: I live, and so do the leases of all my requests."""

    sequence: int


@message("cluster.heartbeat_reply")
@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReply:
    """Worker -> gateway, from the I/O thread: age of the running step, and gauges."""

    sequence: int
    step_age_ms: int
    gauges: dict[str, int]


@message("cluster.holding")
@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Worker -> gateway, every few seconds: all that I hold for you.

    The gateway takes back what it knows nothing of: the attempt whose Cancel got lost, the job that
    came out of a buffer after the worker had been taken for dead.
    """

    requests: tuple[RequestKey, ...]
    items: tuple[ItemKey, ...]


@message("cluster.forgotten")
@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """Worker -> worker: I took you for dead and let go of all that we shared. Let go of it too.

    The first message after such a mistake; what follows it counts again.
    """

    reason: str


@message("cluster.drain")
@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Gateway -> worker: an operator wants you to finish and to leave, within this time."""

    deadline_ms: int


@message("cluster.released")
@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """Gateway -> draining worker: no request of mine needs you, and none will."""

    reason: str


@message("cluster.leaving")
@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Worker or gateway -> peer: I stop now; treat me as dead without waiting."""

    reason: str
