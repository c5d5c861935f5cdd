"""What chats and text completions have in common: settings, the prompt's part, usage in chunks."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from typing import Any

from epd.gateway.completion import Completion, Piece
from epd.gateway.logprobs import of_prompt
from epd.gateway.schemas import ChatRequest
from epd.gateway.shapes.shape import Event, Shape, ascii_json
from epd.prompt import TokenTexts

_TEXT = "\0"
_TEXT_JSON = ascii_json(_TEXT)
"""What stands in a chunk where its text belongs, after all that a client chose."""


class OpenAIShape(Shape):
    """Token ids and prompt_logprobs, extensions of OpenAI's form, are for those who ask."""

    def __init__(self, body: ChatRequest, *, model_name: str, texts: TokenTexts) -> None:
        self._body = body
        self._model_name = model_name
        self._texts = texts
        self._created = int(time.time())
        self._of_prompt: dict[str, Any] = {}
        self._says_text_alone = not (
            body.logprobs or body.return_token_ids or body.shows_usage_so_far
        )
        self._around: dict[int, tuple[bytes, bytes]] = {}
        self._begun: set[int] = set()

    async def begun(self, completion: Completion) -> None:
        """What is said of a long prompt takes a while to write."""
        call = completion.call
        if self._body.prompt_logprobs is not None:
            found = await asyncio.to_thread(
                of_prompt,
                self._texts,
                call.prompt_token_ids,
                call.prompt_logprobs,
                call.prompt_row_spans,
            )
            self._of_prompt = {"prompt_logprobs": found}
        if self._body.return_token_ids and call.prompt_token_ids:
            self._of_prompt["prompt_token_ids"] = call.prompt_token_ids

    def written(self, completion: Completion, piece: Piece) -> bytes:
        """Nearly all pieces say text and nothing else: what stands around it is written once."""
        if piece.choice not in self._begun or not self._says_text_alone or not _is_text(piece):
            return super().written(completion, piece)
        if piece.choice not in self._around:
            said = super().written(completion, piece._replace(text=_TEXT))
            before, _, after = said.rpartition(_TEXT_JSON)
            self._around[piece.choice] = before, after
        before, after = self._around[piece.choice]
        return before + ascii_json(piece.text) + after

    @abstractmethod
    def piece(self, completion: Completion, piece: Piece) -> list[Event]:
        """One or none. From a choice's first on, the choice is in `_begun`."""

    def _usage_so_far(self, completion: Completion) -> dict[str, Any]:
        """Of a chunk: null where there will be one, as OpenAI has it."""
        if self._body.shows_usage_so_far:
            return {"usage": completion.usage()}
        return {"usage": None} if self._body.include_usage else {}


def _is_text(piece: Piece) -> bool:
    """It says text, and nothing else."""
    more = piece.reasoning or piece.calls or piece.finish_reason is not None
    return bool(piece.text) and not more
