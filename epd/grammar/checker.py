"""Whether a grammar can be worked with: tried in a process of its own, for a bounded time.

Some grammars of a few lines take hours to compile, and no limit of the library holds them back.
What was tried is remembered.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

from epd.errors import BadRequest
from epd.grammar.bounded import BoundedProcess, Lost
from epd.types import MAX_GRAMMAR_BYTES

_REMEMBERED = 1024


class Checker:
    """For one thread at a time, but close(). The process starts with the first grammar."""

    def __init__(
        self,
        read: Callable[[], str],
        *,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        timeout_s: float,
    ) -> None:
        facts = {"vocab_size": vocab_size, "eos_token_ids": list(eos_token_ids)}
        self._timeout_s = timeout_s
        self._process = BoundedProcess(
            f"{__package__}.child", lambda: {"tokenizer": read(), **facts}, timeout_s=timeout_s
        )
        self._known: OrderedDict[bytes, str] = OrderedDict()  # by digest: why not, or ""

    def check(self, grammar: str) -> None:
        """BadRequest says why it is not taken."""
        data = grammar.encode()
        if len(data) > MAX_GRAMMAR_BYTES:
            refusal = f"the answer's form is larger than {MAX_GRAMMAR_BYTES} bytes"
        else:
            digest = hashlib.sha256(data).digest()
            known = self._known.pop(digest, None)
            refusal = self._tried(grammar) if known is None else known
            self._known[digest] = refusal
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if refusal:
            raise BadRequest(refusal, code="grammar")

    def close(self) -> None:
        """Any thread; a check under way ends."""
        self._process.close()

    def _tried(self, grammar: str) -> str:
        try:
            return str(self._process.ask({"grammar": grammar})["refusal"])
        except Lost as lost:
            if lost.late:
                return f"the answer's form takes longer than {self._timeout_s:g} s to compile"
            return "the answer's form takes too much memory to compile"
