"""What prefill, fused and decode workers share around the engine."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

from epd.engine import Engine
from epd.errors import EpdError
from epd.handoff.instructions import failure
from epd.types import RequestKey, TokenRun
from epd.wire.links import Links
from epd.wire.messages import Refused, Room, Tokens

log = logging.getLogger(__name__)


class Admission:
    """Blocks for one request, at once or not at all; who was refused hears when there is room."""

    def __init__(self, engine: Engine, links: Links) -> None:
        self._engine = engine
        self._links = links
        self._owed: set[str] = set()

    def reserve(self, gateway: str, request: RequestKey, num_tokens: int) -> bool:
        """True when the blocks are held; else the gateway has been answered."""
        if self._engine.reserve(request, num_tokens):
            return True
        never = not self._engine.fits(num_tokens)
        capacity = self._engine.num_tokens_capacity
        reason = f"needs KV for {num_tokens} tokens, {capacity} in all"
        if not never:
            self._owed.add(gateway)
        self._links.send(gateway, Refused(request=request, reason=reason, never=never))
        return False

    def given_back(self) -> None:
        """Something was freed."""
        owed, self._owed = self._owed, set()
        for gateway in owed:
            self._links.send(gateway, Room(free_tokens=self._engine.free_tokens))

    def gateway_lost(self, gateway: str) -> None:
        """Nobody to tell any more."""
        self._owed.discard(gateway)


def send_tokens(
    links: Links, runs: Iterable[TokenRun], gateway_of: Callable[[RequestKey], str | None]
) -> None:
    """One message per gateway and step."""
    by_gateway: dict[str, list[TokenRun]] = defaultdict(list)
    for run in runs:
        gateway = gateway_of(run.request)
        if gateway is not None:
            by_gateway[gateway].append(run)
    for gateway, mine in by_gateway.items():
        links.send(gateway, Tokens(runs=tuple(mine)))


def send_failure(links: Links, gateway: str, request: RequestKey, error: EpdError) -> None:
    """This attempt ended here."""
    log.warning("request failed request=%s error=%s", request, error.message)
    links.send(gateway, failure(request, error))
