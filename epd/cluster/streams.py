"""How the tokens of one choice become one gapless stream."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from epd.types import FinishReason, TokenLogprobs, TokenRun


@dataclass(slots=True)
class Stream:
    """Emits only the next index; buffers what is ahead and drops what is behind.

    `ended`: nothing more comes, because it finished or because nobody wants more.
    """

    emitted: list[int] = field(default_factory=list)
    ended: bool = False
    _ahead: dict[int, tuple[int, TokenLogprobs | None]] = field(default_factory=dict)
    _end: tuple[int, FinishReason] | None = None

    def take(self, run: TokenRun) -> TokenRun | None:
        """What can be emitted now that `run` is here, if anything."""
        first = len(self.emitted)
        if run.first_index == first and not (self._ahead or self._end or run.logprobs):
            return self._next(run)
        logprobs = run.logprobs or (None,) * len(run.token_ids)
        pairs = zip(run.token_ids, logprobs, strict=False)
        self._ahead |= {i: pair for i, pair in enumerate(pairs, run.first_index) if i >= first}
        if run.finish_reason is not None:
            self._end = (run.first_index + len(run.token_ids), run.finish_reason)
        found: list[TokenLogprobs] = []
        while (token := self._ahead.pop(len(self.emitted), None)) is not None:
            self.emitted.append(token[0])
            if token[1] is not None:
                found.append(token[1])
        return self._emit(run, first, tuple(found))

    def _next(self, run: TokenRun) -> TokenRun | None:
        """Nothing is missing or twice, as it nearly always is: the run goes out as it came."""
        self.emitted += run.token_ids
        self.ended = run.finish_reason is not None
        return run if run.token_ids or self.ended else None

    def _emit(
        self, run: TokenRun, first: int, logprobs: tuple[TokenLogprobs, ...]
    ) -> TokenRun | None:
        reason: FinishReason | None = None
        if self._end is not None and self._end[0] == len(self.emitted):
            reason, self.ended = self._end[1], True
        if len(self.emitted) == first and reason is None:
            return None
        return replace(
            run,
            first_index=first,
            token_ids=tuple(self.emitted[first:]),
            finish_reason=reason,
            logprobs=logprobs,
        )

    def restart(self) -> None:
        """A new attempt begins after what was emitted; what was ahead will come again."""
        self._ahead.clear()
        self._end = None
