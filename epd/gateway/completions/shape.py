"""OpenAI's text completion, and its chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from epd.gateway.completion import Completion, Piece
from epd.gateway.logprobs import of_answer, of_text
from epd.gateway.schemas import ChatRequest
from epd.gateway.shapes.openai import OpenAIShape
from epd.gateway.shapes.shape import Event
from epd.prompt import TokenTexts


class CompletionShape(OpenAIShape):
    """A text_completion of all prompts, or its chunks."""

    def __init__(self, body: ChatRequest, *, model_name: str, texts: TokenTexts) -> None:
        super().__init__(body, model_name=model_name, texts=texts)
        self._lengths: Counter[int] = Counter()

    def whole(self, completion: Completion, choices: Sequence[Piece]) -> dict[str, Any]:
        """All choices of all prompts, in order."""
        shown = [self._choice(one) for one in choices]
        return {**self._answer(completion, shown), "usage": completion.usage()}

    def piece(self, completion: Completion, piece: Piece) -> list[Event]:
        """The same form again, with what is new of one choice."""
        self._begun.add(piece.choice)
        if not piece.text and not piece.token_ids and piece.finish_reason is None:
            return []
        chunk = self._answer(completion, [self._choice(piece)])
        return [Event(chunk | self._usage_so_far(completion))]

    def ended(self, completion: Completion) -> Iterable[Event]:
        """The usage chunk, if it was asked for."""
        if not self._body.include_usage and not completion.shows_path:
            return []
        return [Event({**self._answer(completion, []), "usage": completion.usage()})]

    def _answer(self, completion: Completion, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self._body.request_id or completion.call.request_id}",
            "object": "text_completion",
            "created": self._created,
            "model": self._model_name,
            "choices": choices,
        }

    def _choice(self, piece: Piece) -> dict[str, Any]:
        logprobs = None
        if self._body.logprobs:
            offset = self._lengths[piece.choice]
            logprobs = of_text(self._texts, piece.token_ids, piece.logprobs, offset)
            if self._body.return_token_ids:
                logprobs |= of_answer(self._texts, piece.token_ids, piece.logprobs, shows_ids=True)
        self._lengths[piece.choice] += len(piece.text)
        choice = {
            "index": piece.choice,
            "text": piece.text,
            "logprobs": logprobs,
            "finish_reason": piece.finish_reason,
            **self._of_prompt,
        }
        self._of_prompt = {}
        return {**choice, "token_ids": piece.token_ids} if self._body.return_token_ids else choice
