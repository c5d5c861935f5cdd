"""The two forms of an answer: one JSON object, or server-sent events while it is made.

Both send nothing, not even headers, before the first token or the final error is there, so that
an error has its real status. Both cancel the call when the client leaves.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from epd.errors import Cancelled, EpdError
from epd.gateway.completion import Completion, Piece
from epd.gateway.errors import error_body, unexpected
from epd.gateway.front import Front, Prepared
from epd.gateway.leaving import while_connected
from epd.gateway.service import Service
from epd.types import FinishReason


class Answer(Response, ABC):
    """A request's answer: sending it is what runs the request."""

    def __init__(self, service: Service, front: Front, prepared: Prepared) -> None:
        self.background = None
        self._service = service
        self._front = front
        self._prepared = prepared
        self._shows_ids = bool(prepared.body.return_token_ids)
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, self._answer(scope, receive, send))

    @abstractmethod
    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request and send what comes of it."""

    async def _submit(self) -> Completion:
        spec = self._prepared.spec
        return Completion(
            await self._service.submit(spec),
            detokenizer=self._front.detokenizer(self._prepared.body),
            stop_token_ids=spec.sampling.stop_token_ids,
        )

    def _choice(
        self, content: dict[str, Any], token_ids: Sequence[int], reason: FinishReason | None
    ) -> dict[str, Any]:
        """Token ids, an extension of OpenAI's form, are shown to those who asked for them."""
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason}
        return {**choice, "token_ids": token_ids} if self._shows_ids else choice

    def _body(self, completion: Completion, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{completion.call.request_id}",
            "object": kind,
            "created": self._created,
            "model": self._service.model_name,
            "choices": choices,
        }


class WholeAnswer(Answer):
    """One JSON object."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        completion = await self._submit()
        texts: list[str] = []
        token_ids: list[int] = []
        reason: FinishReason | None = None
        async with aclosing(completion.pieces()) as pieces:
            async for piece in pieces:
                texts.append(piece.text)
                token_ids += piece.token_ids
                reason = piece.finish_reason
        message = {"role": "assistant", "content": "".join(texts), "refusal": None}
        choice = self._choice({"message": message}, token_ids, reason)
        body = self._body(completion, "chat.completion", [choice])
        await JSONResponse({**body, "usage": completion.usage()})(scope, receive, send)


class StreamedAnswer(Answer):
    """Server-sent events, one per run of tokens."""

    _started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except Cancelled:
            if not self._started:
                raise

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            completion = await self._submit()
            async with aclosing(completion.pieces()) as pieces:
                async for piece in pieces:
                    first = not self._started
                    if first:
                        await self._start(send)
                    if first or self._says_something(piece):
                        await self._event(send, self._chunk(completion, piece, first=first))
            if self._prepared.body.include_usage:
                body = self._body(completion, "chat.completion.chunk", [])
                await self._event(send, {**body, "usage": completion.usage()})
            await self._write(send, b"data: [DONE]\n\n")
        except EpdError as error:
            if not self._started:
                raise
            await self._event(send, error_body(error))
        except Exception as error:
            if not self._started:
                raise
            await self._event(send, error_body(unexpected(error)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _says_something(self, piece: Piece) -> bool:
        ended = piece.finish_reason is not None
        return bool(piece.text) or ended or (self._shows_ids and bool(piece.token_ids))

    def _chunk(self, completion: Completion, piece: Piece, *, first: bool) -> dict[str, Any]:
        """The role comes with the first chunk; the finish reason in one of its own delta."""
        delta: dict[str, str] = {"role": "assistant"} if first else {}
        if first or piece.text:
            delta["content"] = piece.text
        choice = self._choice({"delta": delta}, piece.token_ids, piece.finish_reason)
        body = self._body(completion, "chat.completion.chunk", [choice])
        return {**body, "usage": None} if self._prepared.body.include_usage else body

    async def _start(self, send: Send) -> None:
        self._started = True
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _event(self, send: Send, body: dict[str, Any]) -> None:
        # In ASCII: some clients take U+2028 and U+0085 for the end of a line.
        text = json.dumps(body, separators=(",", ":"))
        await self._write(send, f"data: {text}\n\n".encode("ascii"))

    async def _write(self, send: Send, data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})
