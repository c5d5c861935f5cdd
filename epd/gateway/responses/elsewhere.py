"""What the HTTP front needs of the cluster's other gateways: what they keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Find = Callable[[str, str], bytes | None]
"""From an owner and a response's id to all that is kept of it."""


Drop = Callable[[str, str], bool]
"""The same to whether it was kept until now; it is not from now on."""


class Elsewhere(Protocol):
    """The other gateways. All methods are called on the event loop."""

    @property
    def name(self) -> str:
        """This gateway's, which no other has."""
        ...

    def answer_with(self, find: Find, drop: Drop) -> None:
        """What other gateways are told that ask this one, and what is done when they ask."""
        ...

    async def recall(self, gateway: str, owner: str, response_id: str) -> bytes | None:
        """What that gateway keeps. None: nothing (any more), or it is gone. EpdError."""
        ...

    async def forget(self, gateway: str, owner: str, response_id: str) -> bool:
        """Whether that gateway kept it until now; it is not from now on. EpdError."""
        ...
