"""The two forms of an answer: one JSON object, or server-sent events while it is made.

Both send nothing, not even headers, before the first token or the final error is there, so that
an error has its real status. Both cancel the call when the client leaves.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from itertools import chain
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from epd.errors import Cancelled, EpdError
from epd.gateway.completion import Completion, Piece
from epd.gateway.errors import error_body, unexpected
from epd.gateway.front import Front, Prepared
from epd.gateway.leaving import while_connected
from epd.gateway.logprobs import of_answer, of_prompt
from epd.gateway.path_headers import CALL
from epd.gateway.service import Service


class Answer(Response, ABC):
    """A request's answer: sending it is what runs the request."""

    def __init__(self, service: Service, front: Front, prepared: Prepared) -> None:
        self.background = None
        self._service = service
        self._front = front
        self._prepared = prepared
        self._sampling = prepared.spec.sampling
        self._shows_ids = bool(prepared.body.return_token_ids)
        self._created = int(time.time())

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
        )

    def _choice(self, content: dict[str, Any], piece: Piece) -> dict[str, Any]:
        """Token ids, an extension of OpenAI's form, are shown to those who asked for them."""
        logprobs = None
        if self._sampling.logprobs is not None:
            logprobs = of_answer(self._front.token_texts, piece.token_ids, piece.logprobs)
        choice = {
            "index": piece.choice,
            **content,
            "logprobs": logprobs,
            "finish_reason": piece.finish_reason,
        }
        return {**choice, "token_ids": piece.token_ids} if self._shows_ids else choice

    def _body(self, completion: Completion, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{completion.call.request_id}",
            "object": kind,
            "created": self._created,
            "model": self._service.model_name,
            "choices": choices,
        }

    async def _of_prompt(self, completion: Completion) -> dict[str, Any]:
        """What is said of the prompt, an extension for those who asked for it."""
        if self._sampling.prompt_logprobs is None:
            return {}
        call, texts = completion.call, self._front.token_texts
        found = await asyncio.to_thread(
            of_prompt, texts, call.prompt_token_ids, call.prompt_logprobs
        )
        return {"prompt_logprobs": found}


class WholeAnswer(Answer):
    """One JSON object."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        completion = await self._submit(scope)
        pieces: dict[int, list[Piece]] = {}
        async with aclosing(completion.pieces()) as found:
            async for piece in found:
                pieces.setdefault(piece.choice, []).append(piece)
        choices = [self._message(_joined(pieces[choice])) for choice in sorted(pieces)]
        body = {
            **self._body(completion, "chat.completion", choices),
            **await self._of_prompt(completion),
            "usage": completion.usage(with_path=self._prepared.shows_path),
        }
        await JSONResponse(body)(scope, receive, send)

    def _message(self, whole: Piece) -> dict[str, Any]:
        message = {"role": "assistant", "content": whole.text, "refusal": None}
        return self._choice({"message": message}, whole)


def _joined(pieces: Sequence[Piece]) -> Piece:
    """All pieces of one choice as one."""
    return Piece(
        choice=pieces[0].choice,
        text="".join(piece.text for piece in pieces),
        token_ids=tuple(chain.from_iterable(piece.token_ids for piece in pieces)),
        logprobs=tuple(chain.from_iterable(piece.logprobs for piece in pieces)),
        finish_reason=pieces[-1].finish_reason,
    )


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
            completion = await self._submit(scope)
            async with aclosing(completion.pieces()) as pieces:
                await self._chunks(completion, pieces, send)
            if self._prepared.body.include_usage or self._prepared.shows_path:
                body = self._body(completion, "chat.completion.chunk", [])
                usage = completion.usage(with_path=self._prepared.shows_path)
                await self._event(send, {**body, "usage": usage})
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

    async def _chunks(
        self, completion: Completion, pieces: AsyncIterator[Piece], send: Send
    ) -> None:
        """The first chunk of all says what is to be said of the prompt."""
        begun: set[int] = set()
        async for piece in pieces:
            of_prompt = {} if begun else await self._of_prompt(completion)
            if not self._started:
                await self._start(send)
            first = piece.choice not in begun
            if first or self._says_something(piece):
                begun.add(piece.choice)
                await self._event(send, {**self._chunk(completion, piece, first), **of_prompt})

    def _says_something(self, piece: Piece) -> bool:
        shows_tokens = self._shows_ids or self._sampling.logprobs is not None
        ended = piece.finish_reason is not None
        return bool(piece.text) or ended or (shows_tokens and bool(piece.token_ids))

    def _chunk(self, completion: Completion, piece: Piece, first: bool) -> dict[str, Any]:
        """The role comes with the first chunk of a choice, the finish reason with its last."""
        delta: dict[str, str] = {"role": "assistant"} if first else {}
        if first or piece.text:
            delta["content"] = piece.text
        choice = self._choice({"delta": delta}, piece)
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
