"""Runs the windows of a file one after the other, until the sound ends."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from itertools import count

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from epd.errors import EpdError
from epd.gateway.answer import Answer
from epd.gateway.front import Front
from epd.gateway.service import Service
from epd.gateway.transcriptions.reading import Transcription
from epd.types import PAST_THE_END


class TranscribedAnswer(Answer):
    """One text of all windows. Leaving early cancels the one that runs."""

    def __init__(self, service: Service, front: Front, wanted: Transcription) -> None:
        super().__init__(service, front, wanted)
        self._wanted = wanted

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        texts: list[str] = []
        tokens = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        for number in count():
            spec = self._wanted.window(number)
            self._prepared = replace(self._prepared, spec=spec)
            try:
                texts.append((await self._window(scope, tokens)).strip())
            except EpdError as error:
                if number == 0 or error.code != PAST_THE_END:
                    raise
                break
        text = " ".join(filter(None, texts))
        found: Response = PlainTextResponse(text)
        if not self._wanted.as_text:
            found = JSONResponse({"text": text, "usage": {"type": "tokens", **tokens}})
        await found(scope, receive, send)

    async def _window(self, scope: Scope, tokens: dict[str, int]) -> str:
        completion = await self._submit(scope)
        async with aclosing(completion.pieces()) as pieces:
            text = "".join([piece.text async for piece in pieces])
        usage = completion.usage()
        tokens["input_tokens"] += usage["prompt_tokens"]
        tokens["output_tokens"] += usage["completion_tokens"]
        tokens["total_tokens"] += usage["total_tokens"]
        return text
