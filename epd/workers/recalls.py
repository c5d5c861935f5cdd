"""What this gateway asks of others, and what it answers them. On the event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable

from epd.config import WireConfig
from epd.errors import TooLarge, Unavailable
from epd.gateway.responses.elsewhere import Drop, Find
from epd.wire.links import Buffer, Delivery
from epd.wire.messages import Forget, Found, Recall, Recalled

MOST_RELAYS = 3
"""Workers that are asked one after the other, where one does not know the gateway (yet)."""

ENVELOPE_BYTES = 4096
"""What a message takes beside its frame, by a wide margin."""

Send = Callable[[str, object, Buffer | None], bool]


class Recalls:
    """The other gateways, through any worker. `relays` has the names of those that live."""

    def __init__(
        self, name: str, send: Send, relays: Callable[[], Iterable[str]], config: WireConfig
    ) -> None:
        self.name = name
        self._send = send
        self._relays = relays
        self._patience_s = config.dead_after_s
        self._most_bytes = config.max_message_bytes - ENVELOPE_BYTES
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[tuple[Found, bytes]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._find: Find = lambda owner, response_id: None
        self._drop: Drop = lambda owner, response_id: False

    def answer_with(self, find: Find, drop: Drop) -> None:
        """What others are told, and what they may do. Both may take a while: on a thread."""
        self._find, self._drop = find, drop

    async def recall(self, gateway: str, owner: str, response_id: str) -> bytes | None:
        """What that gateway keeps. Unavailable where it cannot be asked now."""
        found, kept = await self._ask(Recall, gateway, owner, response_id)
        if found is Found.TOO_LARGE:
            raise TooLarge(
                "the conversation is too large to be handed from one gateway to another: send it "
                "again instead",
                param="previous_response_id",
            )
        return kept if found is Found.KEPT else None

    async def forget(self, gateway: str, owner: str, response_id: str) -> bool:
        """Whether it was kept there until now. Unavailable where it cannot be asked now."""
        found, _ = await self._ask(Forget, gateway, owner, response_id)
        return found is Found.FORGOTTEN

    async def _ask(
        self, kind: type[Recall | Forget], gateway: str, owner: str, response_id: str
    ) -> tuple[Found, bytes]:
        """Through the first worker that knows the gateway."""
        relays = list(self._relays())[:MOST_RELAYS]
        if not relays:
            raise Unavailable("no worker is there through which other gateways could be asked")
        found, kept = Found.NO_GATEWAY, b""
        for relay in relays:
            question = kind(
                gateway=gateway,
                asker=self.name,
                number=next(self._numbers),
                owner=owner,
                response_id=response_id,
            )
            found, kept = await self._answer_to(relay, question)
            if found is not Found.NO_GATEWAY:
                break
        return found, kept

    async def _answer_to(self, relay: str, question: Recall | Forget) -> tuple[Found, bytes]:
        number = question.number
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            if not self._send(relay, question, None):
                return Found.NO_GATEWAY, b""
            return await asyncio.wait_for(answer, self._patience_s)
        except TimeoutError:
            raise Unavailable("the gateway that keeps the response does not answer") from None
        finally:
            del self._asked[number]

    def on_recalled(self, delivery: Delivery) -> None:
        """An answer. One that nobody waits for any more is dropped."""
        message: Recalled = delivery.message
        waiting = self._asked.get(message.number)
        if waiting is not None and not waiting.done():
            waiting.set_result((message.found, bytes(delivery.frame or b"")))

    def on_question(self, delivery: Delivery) -> None:
        """A question; the answer goes back as it came."""
        task = asyncio.create_task(self._answer(delivery.sender, delivery.message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, relay: str, message: Recall | Forget) -> None:
        kept: bytes | None = None
        if isinstance(message, Forget):
            gone = await asyncio.to_thread(self._drop, message.owner, message.response_id)
            found = Found.FORGOTTEN if gone else Found.UNKNOWN
        else:
            kept = await asyncio.to_thread(self._find, message.owner, message.response_id)
            found = Found.UNKNOWN if kept is None else Found.KEPT
        if kept is not None and len(kept) > self._most_bytes:
            found, kept = Found.TOO_LARGE, None
        self._send(relay, Recalled(asker=message.asker, number=message.number, found=found), kept)
