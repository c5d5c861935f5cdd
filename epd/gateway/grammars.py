"""Grammars are tried before their requests go anywhere, one after the other, off the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from epd.config import GatewayConfig
from epd.errors import BadRequest, Overloaded
from epd.grammar import Checker
from epd.models.spec import Checkpoint
from epd.prompt import tokenizer_json
from epd.types import SamplingParams


class GrammarDesk:
    """One thread and one process, which are not there before the first grammar comes."""

    def __init__(self, checkpoint: Checkpoint, config: GatewayConfig) -> None:
        self._checker = Checker(
            lambda: tokenizer_json(checkpoint.path),
            vocab_size=checkpoint.vocab_size,
            eos_token_ids=checkpoint.eos_token_ids,
            timeout_s=config.grammar_timeout_s,
        )
        self._eos_token_ids = set(checkpoint.eos_token_ids)
        self._most_waiting = config.max_grammars
        self._num_waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammars")

    async def check(self, sampling: SamplingParams, field: str) -> None:
        """Its grammar, if it has one. BadRequest names the field that it was made of."""
        if not sampling.grammar:
            return
        if not self._eos_token_ids <= set(sampling.stop_token_ids):
            raise BadRequest(
                "an answer ends where its form does: ignore_eos cannot be", param="ignore_eos"
            )
        if self._num_waiting >= self._most_waiting:
            raise Overloaded("too many forms of answers wait to be compiled")
        self._num_waiting += 1
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self._checker.check, sampling.grammar
            )
        except BadRequest as error:
            raise BadRequest(error.message, param=field or None, code=error.code) from None
        finally:
            self._num_waiting -= 1

    def close(self) -> None:
        """A check under way ends with its process."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._checker.close()
        self._thread.shutdown(wait=True)
