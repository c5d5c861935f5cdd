"""The two ways of an answer: one JSON object, or server-sent events while it is made.

Both send nothing, not even headers, before the first token or the final error is there, so that
an error has its real status. Both cancel the call when the client leaves. What they send, a Shape
says.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import aclosing

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from epd.errors import Cancelled, EpdError
from epd.gateway.completion import Completion, Piece, joined
from epd.gateway.errors import unexpected
from epd.gateway.front import Front, Prepared
from epd.gateway.leaving import while_connected
from epd.gateway.path_headers import CALL
from epd.gateway.service import Service
from epd.gateway.shapes import Event


def answer(service: Service, front: Front, prepared: Prepared) -> Response:
    """The response to a request that is ready to be submitted."""
    way = StreamedAnswer if prepared.stream else WholeAnswer
    return way(service, front, prepared)


class Answer(Response, ABC):
    """A request's answer: sending it is what runs the request."""

    def __init__(self, service: Service, front: Front, prepared: Prepared) -> None:
        self.background = None
        self._service = service
        self._front = front
        self._prepared = prepared
        self._shape = prepared.shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, self._answer(scope, receive, send))

    @abstractmethod
    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request and send what comes of it."""

    async def _submit(self, scope: Scope) -> Completion:
        spec = self._prepared.spec
        call = scope[CALL] = await self._service.submit(spec)
        return Completion(
            call,
            detokenizers=[self._front.detokenizer(self._prepared) for _ in range(spec.sampling.n)],
            stop_token_ids=spec.sampling.stop_token_ids,
            shows_path=self._prepared.shows_path,
        )


class WholeAnswer(Answer):
    """One JSON object."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        completion = await self._submit(scope)
        pieces: dict[int, list[Piece]] = {}
        async with aclosing(completion.pieces()) as found:
            async for piece in found:
                pieces.setdefault(piece.choice, []).append(piece)
        await self._shape.begun(completion)
        choices = [joined(pieces[choice]) for choice in sorted(pieces)]
        await JSONResponse(self._shape.whole(completion, choices))(scope, receive, send)


class StreamedAnswer(Answer):
    """Server-sent events."""

    _started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except Cancelled:
            if not self._started:
                raise

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            completion = await self._submit(scope)
            await self._pieces(completion, send)
            await self._events(send, self._shape.ended(completion))
            await self._write(send, self._shape.closing)
        except EpdError as error:
            if not self._started:
                raise
            await self._events(send, self._shape.failed(error))
        except Exception as error:
            if not self._started:
                raise
            await self._events(send, self._shape.failed(unexpected(error)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self, completion: Completion, send: Send) -> None:
        async with aclosing(completion.pieces()) as pieces:
            async for piece in pieces:
                if not self._started:
                    await self._shape.begun(completion)
                    await self._start(send)
                await self._events(send, self._shape.piece(completion, piece))

    async def _start(self, send: Send) -> None:
        self._started = True
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _events(self, send: Send, events: Iterable[Event]) -> None:
        await self._write(send, b"".join(_written(event) for event in events))

    async def _write(self, send: Send, data: bytes) -> None:
        if data:
            await send({"type": "http.response.body", "body": data, "more_body": True})


def _written(event: Event) -> bytes:
    # In ASCII: some clients take U+2028 and U+0085 for the end of a line.
    data = json.dumps(event.data, separators=(",", ":"))
    name = f"event: {event.name}\n" if event.name else ""
    return f"{name}data: {data}\n\n".encode("ascii")
