"""Passes on what one gateway asks of another."""

from __future__ import annotations

import logging
from typing import Any

from epd.wire.links import Delivery, Links
from epd.wire.messages import Forget, Found, Recall, Recalled
from epd.workers.gateways import Gateways

log = logging.getLogger(__name__)


class Relay:
    """Of one worker, between gateways that have welcomed it."""

    def __init__(self, links: Links, gateways: Gateways) -> None:
        self._links = links
        self._gateways = gateways

    def pass_on(self, delivery: Delivery) -> None:
        """From gateways only, and to them. What one that is gone was asked is answered here."""
        message: Any = delivery.message
        if self._gateways.get(delivery.sender, delivery.incarnation) is None:
            log.warning("not from a gateway: message=%s from=%s", message, delivery.sender)
        elif isinstance(message, Recalled):
            frame = None if delivery.frame is None else bytes(delivery.frame)
            self._send(message.asker, message, frame)
        elif isinstance(message, Recall | Forget) and not self._send(message.gateway, message):
            gone = Recalled(asker=delivery.sender, number=message.number, found=Found.NO_GATEWAY)
            self._links.send(delivery.sender, gone)

    def _send(self, gateway: str, message: object, frame: bytes | None = None) -> bool:
        if self._gateways.get(gateway) is None:
            return False
        return self._links.send(gateway, message, frame)
