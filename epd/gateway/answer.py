"""The two ways of an answer: one JSON object, or server-sent events while it is made.

Both send nothing, not even headers, before the first token or the final error is there, so that
an error has its real status. Both cancel the call when the client leaves. What they send, a Shape
says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import aclosing

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from epd.errors import Cancelled, EpdError
from epd.gateway.batch import submit
from epd.gateway.completion import Completion, Piece, joined
from epd.gateway.errors import BODY, unexpected
from epd.gateway.front import Front, Prepared
from epd.gateway.leaving import while_connected
from epd.gateway.path_headers import CALL
from epd.gateway.service import Service
from epd.gateway.shapes import Event

MOST_AT_ONCE = 64
"""Events in one write, where more tokens are here than were sent."""


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
        specs, shows_stop = self._prepared.specs, self._prepared.shows_stop
        call = scope[CALL] = await submit(self._service, specs)
        num_choices = sum(spec.sampling.n for spec in specs)
        return Completion(
            call,
            detokenizers=[self._front.detokenizer(self._prepared) for _ in range(num_choices)],
            stop_token_ids=() if shows_stop else specs[0].sampling.stop_token_ids,
            form=self._prepared.form,
            shows_path=self._prepared.shows_path,
            account=self._prepared.account,
        )


class WholeAnswer(Answer):
    """One JSON object."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        completion = await self._submit(scope)
        pieces: dict[int, list[Piece]] = {}
        async with aclosing(completion.pieces()) as found:
            async for piece in found:
                self._shape.seen(completion, piece)
                pieces.setdefault(piece.choice, []).append(piece)
        await self._shape.begun(completion)
        choices = [joined(pieces[choice]) for choice in sorted(pieces)]
        await JSONResponse(self._shape.whole(completion, choices))(scope, receive, send)


class StreamedAnswer(Answer):
    """Server-sent events."""

    def __init__(self, service: Service, front: Front, prepared: Prepared) -> None:
        super().__init__(service, front, prepared)
        self._started = False
        self._unsent: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except Cancelled:
            if not self._started:
                raise

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            completion = await self._submit(scope)
            await self._pieces(completion, send, scope[BODY])
            await self._end(send, self._shape.ended(completion), self._shape.closing)
        except EpdError as error:
            if not self._started:
                raise
            await self._failed(send, error)
        except Exception as error:
            if not self._started:
                raise
            await self._failed(send, unexpected(error))

    async def _failed(self, send: Send, error: EpdError) -> None:
        await self._end(send, self._shape.failed(error), self._shape.broken_off)

    async def _pieces(self, completion: Completion, send: Send, send_body: Send) -> None:
        call, written = completion.call, self._shape.written
        async with aclosing(completion.pieces()) as pieces:
            async for piece in pieces:
                if not self._started:
                    await self._shape.begun(completion)
                    await self._start(send)
                self._unsent.append(written(completion, piece))
                if not call.more or len(self._unsent) >= MOST_AT_ONCE:
                    await self._flush(send_body)

    async def _start(self, send: Send) -> None:
        self._started = True
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _end(self, send: Send, events: Iterable[Event], closing: bytes) -> None:
        """The last that is sent."""
        data = b"".join([*self._unsent, *map(Event.written, events), closing])
        await send({"type": "http.response.body", "body": data, "more_body": False})

    async def _flush(self, send: Send) -> None:
        """Events of tokens that came together go out together."""
        if data := b"".join(self._unsent):
            self._unsent.clear()
            await send({"type": "http.response.body", "body": data, "more_body": True})
