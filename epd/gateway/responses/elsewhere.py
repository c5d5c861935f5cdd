"""What the HTTP front needs of the cluster's other gateways: what they keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Find = Callable[[str, str], bytes | None]
"""From an owner and a response's id to all that is kept of it."""


class Elsewhere(Protocol):
    """The other gateways. All methods are called on the event loop."""

    @property
    def name(self) -> str:
        """This gateway's, which no other has."""
        ...

    def answer_with(self, find: Find) -> None:
        """What other gateways are told that ask this one."""
        ...

    async def recall(self, gateway: str, owner: str, response_id: str) -> bytes | None:
        """What that gateway keeps. None: nothing (any more), or it is gone. EpdError."""
        ...
