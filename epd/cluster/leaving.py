"""When a draining worker may leave: as soon as no request needs it."""

from __future__ import annotations

from epd.cluster.membership import Membership
from epd.cluster.requests import Phase, Request
from epd.types import Member, Stage


def needs(request: Request, member: Member, membership: Membership) -> bool:
    """The request would have to be moved, or would fail, if this worker left now."""
    return (
        member.name in request.workers
        or _has_rows(request, member)
        or _is_last(request, member, membership)
    )


def _has_rows(request: Request, member: Member) -> bool:
    """It encodes an item whose rows prefill has not used yet."""
    mine = (item for item in request.items if item.encoder == member.name and not item.dropped)
    return not request.begun and any(mine)


def _is_last(request: Request, member: Member, membership: Membership) -> bool:
    """The request has to be placed in this worker's pool, which has nobody else for it."""
    if request.phase is Phase.RUNNING or not request.bound or member.pool not in request.pools:
        return False
    stages = set(member.stages) - {Stage.ENCODE}
    return any(member in membership.serving(s, pools=request.pools) for s in stages)
