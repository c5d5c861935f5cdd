"""OpenAI's chat completion, and its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from epd.gateway.completion import Completion, Piece
from epd.gateway.logprobs import of_answer
from epd.gateway.schemas import ChatRequest
from epd.gateway.shapes.openai import OpenAIShape
from epd.gateway.shapes.shape import Event
from epd.prompt import TokenTexts
from epd.types import FinishReason


class ChatShape(OpenAIShape):
    """A chat.completion, or its chunks."""

    def __init__(self, body: ChatRequest, *, model_name: str, texts: TokenTexts) -> None:
        super().__init__(body, model_name=model_name, texts=texts)
        self._calling: set[int] = set()

    def whole(self, completion: Completion, choices: Sequence[Piece]) -> dict[str, Any]:
        """A chat.completion."""
        return {
            **self._answer(
                completion, "chat.completion", [self._message(completion, one) for one in choices]
            ),
            **self._of_prompt,
            "usage": completion.usage(),
        }

    def piece(self, completion: Completion, piece: Piece) -> list[Event]:
        """A chat.completion.chunk, unless it would say nothing.

        The role comes with the first chunk of a choice, the finish reason with its last, and what
        is said of the prompt with the first of all.
        """
        first = piece.choice not in self._begun
        if not first and not self._says_something(piece):
            return []
        of_prompt = {} if self._begun else self._of_prompt
        self._begun.add(piece.choice)
        choice = self._choice({"delta": self._delta(completion, piece, first)}, piece)
        chunk = {**self._answer(completion, "chat.completion.chunk", [choice]), **of_prompt}
        return [Event(chunk | self._usage_so_far(completion))]

    def ended(self, completion: Completion) -> Iterable[Event]:
        """The usage chunk, if it was asked for."""
        if not self._body.include_usage and not completion.shows_path:
            return []
        chunk = self._answer(completion, "chat.completion.chunk", [])
        return [Event({**chunk, "usage": completion.usage()})]

    def _answer(self, completion: Completion, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._body.request_id or completion.call.request_id}",
            "object": kind,
            "created": self._created,
            "model": self._model_name,
            "choices": choices,
        }

    def _message(self, completion: Completion, whole: Piece) -> dict[str, Any]:
        """What is not there is left out, but `content` is null beside calls."""
        message: dict[str, Any] = {"role": "assistant", "content": whole.text, "refusal": None}
        if whole.reasoning:
            message["reasoning_content"] = whole.reasoning
        if whole.calls:
            message["content"] = whole.text or None
            message["tool_calls"] = [
                {
                    "id": completion.call_id(whole.choice, call.index),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in whole.calls
            ]
        return self._choice({"message": message}, whole)

    def _delta(self, completion: Completion, piece: Piece, first: bool) -> dict[str, Any]:
        """A call has its id and its name in its first piece only."""
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if piece.text or (first and not piece.reasoning and not piece.calls):
            delta["content"] = piece.text
        if piece.reasoning:
            delta["reasoning_content"] = piece.reasoning
        if piece.calls:
            delta["tool_calls"] = [
                {
                    "index": call.index,
                    "id": completion.call_id(piece.choice, call.index),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                if call.name
                else {"index": call.index, "function": {"arguments": call.arguments}}
                for call in piece.calls
            ]
        return delta

    def _choice(self, content: dict[str, Any], piece: Piece) -> dict[str, Any]:
        if piece.calls:
            self._calling.add(piece.choice)
        logprobs = None
        if self._body.logprobs:
            logprobs = of_answer(
                self._texts,
                piece.token_ids,
                piece.logprobs,
                shows_ids=bool(self._body.return_token_ids),
            )
        choice = {
            "index": piece.choice,
            **content,
            "logprobs": logprobs,
            "finish_reason": self._reason(piece),
        }
        return {**choice, "token_ids": piece.token_ids} if self._body.return_token_ids else choice

    def _reason(self, piece: Piece) -> str | None:
        """The end of an answer that calls functions is that it calls them."""
        called = piece.choice in self._calling and piece.finish_reason is FinishReason.STOP
        return "tool_calls" if called else piece.finish_reason

    def _says_something(self, piece: Piece) -> bool:
        shows_tokens = self._body.return_token_ids or self._body.logprobs
        ended = piece.finish_reason is not None
        read = piece.text or piece.reasoning or piece.calls
        return bool(read) or ended or (bool(shows_tokens) and bool(piece.token_ids))
