"""What a stage is to its station and to the loop of its process."""

from __future__ import annotations

from typing import Protocol

from epd.wire.links import Delivery
from epd.wire.messages import Holding
from epd.workers.turns import Claims, Turn


class Core(Protocol):
    """The stage behind a station."""

    def receive(self, delivery: Delivery) -> None:
        """A message of the stage arrived."""

    def peer_lost(self, name: str) -> None:
        """A worker died or left, or one of the two took the other for dead."""

    def gateway_lost(self, name: str) -> None:
        """A gateway died or left: everything held for it is to be given back."""

    def holding(self, gateway: str) -> Holding:
        """All that is held for a gateway."""

    def local(self, event: object) -> None:
        """An event from a thread of the stage's own."""

    @property
    def claims(self) -> Claims:
        """Requests that forwards are due of, now or later; none while no forward is due."""

    @property
    def stuck(self) -> bool:
        """A peer takes no bulk now and will not say when it does: step() is to be tried soon."""

    def step(self, turn: Turn = Turn.ALONE) -> None:
        """One unit of work, of the kind and size that its turn is for."""

    def gauges(self) -> dict[str, int]:
        """What the stage holds."""

    def close(self) -> None:
        """Free threads and shared memory."""
