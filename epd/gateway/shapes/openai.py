"""What chats and text completions have in common: settings, the prompt's part, usage in chunks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from epd.gateway.completion import Completion
from epd.gateway.logprobs import of_prompt
from epd.gateway.schemas import ChatRequest
from epd.gateway.shapes.shape import Shape
from epd.prompt import TokenTexts


class OpenAIShape(Shape):
    """Token ids and prompt_logprobs, extensions of OpenAI's form, are for those who ask."""

    def __init__(self, body: ChatRequest, *, model_name: str, texts: TokenTexts) -> None:
        self._body = body
        self._model_name = model_name
        self._texts = texts
        self._created = int(time.time())
        self._of_prompt: dict[str, Any] = {}

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

    def _usage_so_far(self, completion: Completion) -> dict[str, Any]:
        """Of a chunk: null where there will be one, as OpenAI has it."""
        if self._body.shows_usage_so_far:
            return {"usage": completion.usage()}
        return {"usage": None} if self._body.include_usage else {}
