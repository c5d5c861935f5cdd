"""One answer while it is made: tokens in, pieces of text out, and the cluster told when to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from epd.errors import InternalError
from epd.gateway.service import Call
from epd.prompt import Detokenizer
from epd.types import FinishReason, TokenRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one run of tokens adds to the answer, possibly no text.

    `token_ids` are all that count as generated, the one that stops included.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None


class Completion:
    """Drives one call. `num_tokens` counts generated tokens, an ending eos included."""

    def __init__(
        self, call: Call, *, detokenizer: Detokenizer, stop_token_ids: tuple[int, ...]
    ) -> None:
        self.call = call
        self.num_tokens = 0
        self._detokenizer = detokenizer
        self._stop_token_ids = frozenset(stop_token_ids)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """To be closed by who iterates. However it ends, nothing stays behind in the cluster."""
        ended = False
        try:
            async for run in self.call.runs():
                piece = self._piece(run)
                ended = run.finish_reason is not None
                yield piece
                if piece.finish_reason is not None:
                    return
            raise InternalError("gateway: the tokens ended without a finish reason")
        finally:
            if not ended:  # an error, a stop string, or a client that left
                await asyncio.shield(self.call.cancel())

    def usage(self) -> dict[str, int]:
        """OpenAI's usage object."""
        num_prompt = self.call.num_prompt_tokens
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": self.num_tokens,
            "total_tokens": num_prompt + self.num_tokens,
        }

    def _piece(self, run: TokenRun) -> Piece:
        if run.first_index != self.num_tokens:
            raise InternalError(
                f"gateway: token {run.first_index} came where {self.num_tokens} was due"
            )
        shown = run.token_ids
        if run.finish_reason is FinishReason.STOP and shown and shown[-1] in self._stop_token_ids:
            shown = shown[:-1]  # the token that stops is no text
        before = self._detokenizer.num_tokens
        text = self._detokenizer.add(shown)
        if run.finish_reason is not None:
            text += self._detokenizer.finish()
        reason, ids = run.finish_reason, run.token_ids
        if self._detokenizer.stopped:
            reason, ids = FinishReason.STOP, ids[: self._detokenizer.num_tokens - before]
        self.num_tokens += len(ids)
        return Piece(text=text, token_ids=ids, finish_reason=reason)
