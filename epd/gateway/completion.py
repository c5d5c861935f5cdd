"""One answer while it is made: tokens in, pieces of text out, and the cluster told when to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from epd.errors import InternalError
from epd.gateway.accounts import Account
from epd.gateway.service import Call
from epd.observe import shown
from epd.prompt import Detokenizer
from epd.prompt.calls import PLAIN, AnswerForm, AnswerReader, CallPiece, Reading, joined_readings
from epd.types import FinishReason, Modality, TokenLogprobs, TokenRun


class Piece(NamedTuple):
    """What one run of tokens adds to its choice, possibly nothing that can be shown.

    `token_ids` are all that count as generated, the one that stops included; `logprobs` are theirs
    where they were asked for.
    """

    choice: int
    text: str
    token_ids: tuple[int, ...]
    reasoning: str = ""
    calls: tuple[CallPiece, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None


def joined(pieces: Sequence[Piece]) -> Piece:
    """All pieces of one choice as one."""
    read = joined_readings(
        [Reading(text=one.text, reasoning=one.reasoning, calls=one.calls) for one in pieces]
    )
    return Piece(
        choice=pieces[0].choice,
        text=read.text,
        reasoning=read.reasoning,
        calls=read.calls,
        token_ids=tuple(chain.from_iterable(piece.token_ids for piece in pieces)),
        logprobs=tuple(chain.from_iterable(piece.logprobs for piece in pieces)),
        finish_reason=pieces[-1].finish_reason,
    )


class Completion:
    """Drives one call. Choice number i becomes text in `detokenizers[i]`, which has this `form`.

    A token that stops a choice and is one of `stop_token_ids` is no text of it. `shows_path`: its
    usage tells what was done for it. `account` pays for all tokens at the end.
    """

    def __init__(
        self,
        call: Call,
        *,
        detokenizers: Sequence[Detokenizer],
        stop_token_ids: tuple[int, ...],
        form: AnswerForm = PLAIN,
        shows_path: bool = False,
        account: Account | None = None,
    ) -> None:
        self.call = call
        self._account = account
        self.shows_path = shows_path
        self._choices = [_Choice(i, one, AnswerReader(form)) for i, one in enumerate(detokenizers)]
        self._live = set(range(len(detokenizers)))
        self._stop_token_ids = frozenset(stop_token_ids)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """To be closed by who iterates. However it ends, nothing stays behind in the cluster."""
        try:
            async for run in self.call.runs():
                if run.choice not in self._live:
                    continue  # it was on its way when a stop string ended the choice
                piece = self._choices[run.choice].take(run, self._stop_token_ids)
                if piece.finish_reason is not None:
                    self._live.remove(run.choice)
                    if run.finish_reason is None:
                        self.call.end_choice(run.choice)
                yield piece
                if not self._live:
                    return
            raise InternalError("gateway: the tokens ended without a finish reason")
        finally:
            if self._account is not None:
                spent = self.call.num_prompt_tokens + self._num_tokens
                self._account.spend(spent, time.monotonic())
            if self._live:  # an error, or a client that left
                await asyncio.shield(self.call.cancel())

    def call_id(self, choice: int, index: int) -> str:
        """What clients call one tool call of this completion; no other has it."""
        return f"call_{self.call.request_id}_{choice}_{index}"

    @property
    def _num_tokens(self) -> int:
        return sum(choice.num_tokens for choice in self._choices)

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage object. Generated tokens count, ending eos tokens included.

        The path is an extension for those who asked for it.
        """
        num_prompt = self.call.num_prompt_tokens
        num_tokens = self._num_tokens
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_tokens,
            "total_tokens": num_prompt + num_tokens,
            "prompt_tokens_details": self._details(),
            "completion_tokens_details": {
                "reasoning_tokens": sum(choice.num_reasoning for choice in self._choices)
            },
            **({"epd": shown(self.call.path)} if self.shows_path else {}),
        }

    def _details(self) -> dict[str, int]:
        """Of the prompt's tokens: those that were cached, and those that are rows of items."""
        rows = self.call.path.num_rows()
        of_items = {f"{modality.value}_tokens": rows[modality] for modality in Modality}
        return {"cached_tokens": self.call.num_cached_tokens, **of_items}


class _Choice:
    """One choice while it is made.

    `num_reasoning` of its tokens are reasoning with its marks, up to the one that ends it.
    """

    def __init__(self, index: int, detokenizer: Detokenizer, reader: AnswerReader) -> None:
        self.num_tokens = 0
        self.num_reasoning = 0
        self._index = index
        self._detokenizer = detokenizer
        self._reader = reader

    def take(self, run: TokenRun, stop_token_ids: frozenset[int]) -> Piece:
        """What its next tokens say, as far as no stop string or last call ends it."""
        if run.first_index != self.num_tokens:
            raise InternalError(
                f"gateway: token {run.first_index} came where {self.num_tokens} was due"
            )
        before = self._detokenizer.num_tokens
        if run.finish_reason is None and not self._reader.may_reason:
            text = self._detokenizer.add(run.token_ids)
            if self._reader.is_plain(text) and not self._detokenizer.stopped:  # as nearly always
                self.num_tokens += len(run.token_ids)
                return Piece(self._index, text, run.token_ids, logprobs=run.logprobs)
            return self._piece(run, [self._reader.feed(text)], before)
        shown = run.token_ids
        if run.finish_reason is FinishReason.STOP and shown and shown[-1] in stop_token_ids:
            shown = shown[:-1]  # the token that stops is no text
        return self._piece(run, self._read(shown), before)

    def _piece(self, run: TokenRun, readings: list[Reading], before: int) -> Piece:
        """What is read of a run, before which there were so many tokens, and how it ends."""
        reason, ids = run.finish_reason, run.token_ids
        if reason is not None:
            readings.append(self._reader.feed(self._detokenizer.finish()))
        if self._detokenizer.stopped:
            reason, ids = FinishReason.STOP, ids[: self._detokenizer.num_tokens - before]
        if reason is not None:
            readings.append(self._reader.finish())
        found = joined_readings(readings)
        if reason is None and self._reader.done:
            reason = FinishReason.STOP
        self.num_tokens += len(ids)
        return Piece(
            choice=self._index,
            text=found.text,
            reasoning=found.reasoning,
            calls=found.calls,
            token_ids=ids,
            logprobs=run.logprobs[: len(ids)],
            finish_reason=reason,
        )

    def _read(self, token_ids: tuple[int, ...]) -> list[Reading]:
        """What they say. One by one as long as each may be reasoning: however tokens come
        together, so many of them are.
        """
        readings: list[Reading] = []
        while token_ids and self._reader.may_reason and not self._detokenizer.stopped:
            readings.append(self._reader.feed(self._detokenizer.add(token_ids[:1])))
            token_ids = token_ids[1:]
            if self._reader.reasoned:
                self.num_reasoning = self._detokenizer.num_tokens
        if token_ids:
            readings.append(self._reader.feed(self._detokenizer.add(token_ids)))
        return readings
