"""OpenAI's chat completion, and its chunks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any

from epd.gateway.completion import Completion, Piece
from epd.gateway.logprobs import of_answer, of_prompt
from epd.gateway.schemas import ChatRequest
from epd.gateway.shapes.shape import Event, Shape
from epd.prompt import TokenTexts


class ChatShape(Shape):
    """Token ids and prompt_logprobs, extensions of OpenAI's form, are for those who ask."""

    def __init__(self, body: ChatRequest, *, model_name: str, texts: TokenTexts) -> None:
        self._body = body
        self._model_name = model_name
        self._texts = texts
        self._created = int(time.time())
        self._begun: set[int] = set()
        self._of_prompt: dict[str, Any] = {}

    async def begun(self, completion: Completion) -> None:
        """What is said of a long prompt takes a while to write."""
        if self._body.prompt_logprobs is not None:
            call = completion.call
            found = await asyncio.to_thread(
                of_prompt, self._texts, call.prompt_token_ids, call.prompt_logprobs
            )
            self._of_prompt = {"prompt_logprobs": found}

    def whole(self, completion: Completion, choices: Sequence[Piece]) -> dict[str, Any]:
        """A chat.completion."""
        return {
            **self._answer(completion, "chat.completion", [self._message(one) for one in choices]),
            **self._of_prompt,
            "usage": completion.usage(),
        }

    def piece(self, completion: Completion, piece: Piece) -> Iterable[Event]:
        """A chat.completion.chunk, unless it would say nothing.

        The role comes with the first chunk of a choice, the finish reason with its last, and what
        is said of the prompt with the first of all.
        """
        first = piece.choice not in self._begun
        if not first and not self._says_something(piece):
            return []
        of_prompt = {} if self._begun else self._of_prompt
        self._begun.add(piece.choice)
        delta: dict[str, str] = {"role": "assistant"} if first else {}
        if first or piece.text:
            delta["content"] = piece.text
        choice = self._choice({"delta": delta}, piece)
        chunk = {**self._answer(completion, "chat.completion.chunk", [choice]), **of_prompt}
        return [Event({**chunk, "usage": None} if self._body.include_usage else chunk)]

    def ended(self, completion: Completion) -> Iterable[Event]:
        """The usage chunk, if it was asked for."""
        if not self._body.include_usage and not completion.shows_path:
            return []
        chunk = self._answer(completion, "chat.completion.chunk", [])
        return [Event({**chunk, "usage": completion.usage()})]

    def _answer(self, completion: Completion, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{completion.call.request_id}",
            "object": kind,
            "created": self._created,
            "model": self._model_name,
            "choices": choices,
        }

    def _message(self, whole: Piece) -> dict[str, Any]:
        message = {"role": "assistant", "content": whole.text, "refusal": None}
        return self._choice({"message": message}, whole)

    def _choice(self, content: dict[str, Any], piece: Piece) -> dict[str, Any]:
        logprobs = None
        if self._body.logprobs:
            logprobs = of_answer(self._texts, piece.token_ids, piece.logprobs)
        choice = {
            "index": piece.choice,
            **content,
            "logprobs": logprobs,
            "finish_reason": piece.finish_reason,
        }
        return {**choice, "token_ids": piece.token_ids} if self._body.return_token_ids else choice

    def _says_something(self, piece: Piece) -> bool:
        shows_tokens = self._body.return_token_ids or self._body.logprobs
        ended = piece.finish_reason is not None
        return bool(piece.text) or ended or (bool(shows_tokens) and bool(piece.token_ids))
