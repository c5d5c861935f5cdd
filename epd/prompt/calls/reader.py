"""Reads one answer as it comes: `<think>` reasoning, text, and `<tool_call>` blocks."""

from __future__ import annotations

from enum import Enum, auto

from epd.prompt.calls.block import CallBlock
from epd.prompt.calls.form import END_THINK, OPEN, THINK, AnswerForm
from epd.prompt.calls.markers import Trimmed, cut, may_become
from epd.prompt.calls.reading import CallPiece, Reading, joined_readings


class _In(Enum):
    """Where in the answer the reader is."""

    BEGINNING = auto()
    REASONING = auto()
    TEXT = auto()
    CALL = auto()


class AnswerReader:
    """One choice's text. How it is cut into pieces never changes what all readings add up to.

    White space around marks belongs to the form. A block that is no call is text. `done`: the one
    call that was wanted is there, and nothing more is read. `reasoned`: there was reasoning.
    """

    def __init__(self, form: AnswerForm) -> None:
        self.done = False
        self.reasoned = form.begun
        self._form = form
        self._in = _In.BEGINNING if form.reasoning else _In.TEXT
        self._thought = Trimmed(fresh=True)
        self._text = Trimmed(fresh=False)
        self._block = CallBlock()
        self._num_calls = 0
        self._held = ""

    @property
    def may_reason(self) -> bool:
        """Reasoning goes on, or may begin."""
        return self._in in (_In.BEGINNING, _In.REASONING)

    def feed(self, text: str) -> Reading:
        """What this text completes."""
        return Reading(text=text) if self.is_plain(text) else self._take(text, at_end=False)

    def finish(self) -> Reading:
        """The rest, when no more text comes."""
        return self._take("", at_end=True)

    def is_plain(self, text: str) -> bool:
        """Whether it is text and nothing else, as nearly all is, and need not be fed."""
        if self._in is not _In.TEXT or self._held or self.done or not self._text.passes:
            return False
        return not self._form.calls or not (OPEN[0] in text or text[-1:].isspace())

    def _take(self, text: str, *, at_end: bool) -> Reading:
        self._held += text
        found: list[Reading] = []
        while not self.done and self._step(found, at_end):
            pass
        if self._in is _In.TEXT and (at_end or not self._form.calls):
            found.append(Reading(text=self._text.end()))  # no mark can follow
        return joined_readings(found)

    def _step(self, found: list[Reading], at_end: bool) -> bool:
        """Reads on to the next mark; False where the text ends before it."""
        match self._in:
            case _In.BEGINNING:
                return self._begin(at_end)
            case _In.REASONING:
                before, ended, self._held = self._cut(END_THINK, at_end)
                found.append(Reading(reasoning=self._thought.add(before)))
                if ended:
                    self._text.mark()
                    self._in = _In.TEXT
                return ended
            case _In.TEXT:
                before, opened, self._held = self._cut(OPEN if self._form.calls else "", at_end)
                found.append(Reading(text=self._text.add(before)))
                if opened:
                    self._block = CallBlock()
                    self._in = _In.CALL
                return opened
            case _In.CALL:
                return self._read_call(found, at_end)

    def _begin(self, at_end: bool) -> bool:
        start = self._held.lstrip()
        if may_become(start, THINK) and not at_end:
            return False
        if start.startswith(THINK):
            self._held = start.removeprefix(THINK)
            self._in = _In.REASONING
            self.reasoned = True
        else:
            self._in = _In.REASONING if self._form.begun else _In.TEXT
        return True

    def _cut(self, mark: str, at_end: bool) -> tuple[str, bool, str]:
        before, found, after = cut(self._held, mark) if mark else (self._held, False, "")
        return (before, found, after) if found or not at_end else (before + after, False, "")

    def _read_call(self, found: list[Reading], at_end: bool) -> bool:
        block = self._block
        known = block.is_call
        arguments = block.feed(self._held)
        self._held = ""
        if at_end:
            block.finish()
        if block.is_call:
            if not known:
                self._text.mark()
                self._num_calls += 1
            if arguments:
                name = "" if known else block.name
                piece = CallPiece(index=self._num_calls - 1, name=name, arguments=arguments)
                found.append(Reading(calls=(piece,)))
        if not block.over:
            return False
        self._held = block.rest
        self._in = _In.TEXT
        if block.is_call:
            self.done = not self._form.parallel
        else:
            found.append(Reading(text=self._text.add(OPEN)))
        return True
