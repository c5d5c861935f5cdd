"""One tool call in the form of Hermes and Qwen: `<tool_call>{"name": ..., "arguments": {...}}`."""

from __future__ import annotations

import json
from enum import Enum, auto

from epd.prompt.calls.form import CLOSE
from epd.prompt.calls.markers import may_become
from epd.prompt.calls.values import SPACE, Value

NAME, ARGUMENTS = "name", "arguments"


class _Due(Enum):
    """What comes next in the block."""

    OBJECT = auto()
    KEY = auto()
    COLON = auto()
    VALUE = auto()
    COMMA = auto()
    CLOSE = auto()


_SIGNS = {
    (_Due.OBJECT, "{"): _Due.KEY,
    (_Due.KEY, "}"): _Due.CLOSE,
    (_Due.COLON, ":"): _Due.VALUE,
    (_Due.COMMA, ","): _Due.KEY,
    (_Due.COMMA, "}"): _Due.CLOSE,
}


class CallBlock:
    """Reads what follows the opening mark, up to and with the closing one.

    It is a call once its name is known and its arguments begin, and cannot be taken back from then
    on. `over`: the text from `rest` on is no part of it; all of it, if it turned out to be no call.
    """

    def __init__(self) -> None:
        self.name = ""
        self.is_call = False
        self.over = False
        self.rest = ""
        self._read = ""  # all of it, until it is known to be a call
        self._held = ""  # not looked at yet
        self._due = _Due.OBJECT
        self._key = ""
        self._value: Value | None = None
        self._raw = ""
        self._arguments = ""
        self._has_arguments = False

    def feed(self, text: str) -> str:
        """The arguments that this text adds to the call."""
        self._held += text
        if not self.is_call:
            self._read += text
        while not self.over and self._held and self._step():
            pass
        if not self.is_call:
            return ""
        arguments, self._arguments, self._read = self._arguments, "", ""
        return arguments

    def finish(self) -> None:
        """No more text comes."""
        if not self.over:
            self._end("" if self.is_call else self._read)

    def _step(self) -> bool:
        """Reads the next part; False where it is not there yet."""
        if self._value is not None:
            self._take_value(self._value)
            return True
        self._held = self._held.lstrip(SPACE)
        if not self._held:
            return False
        if self._due is _Due.CLOSE:
            return self._take_close()
        sign = self._held[0]
        if (after := _SIGNS.get((self._due, sign))) is not None:
            self._held = self._held[1:]
            self._due = after
            if after is _Due.CLOSE:
                self._end_object()
        elif (self._due is _Due.KEY and sign == '"') or (
            self._due is _Due.VALUE and sign not in ",:}]<"
        ):
            self._value, self._raw = Value(), ""
        else:
            self._give_up()
        return True

    def _take_value(self, value: Value) -> None:
        size = value.take(self._held)
        taken, self._held = self._held[:size], self._held[size:]
        if self._is_arguments(self._raw or taken):
            self._arguments += taken
            self._raw = "{"
            self._found_call()
        else:
            self._raw += taken
        if value.ended:
            self._value = None
            self._end_value()

    def _is_arguments(self, raw: str) -> bool:
        """The object of arguments, not a second one."""
        return (
            self._due is _Due.VALUE
            and self._key == ARGUMENTS
            and not self._has_arguments
            and raw.startswith("{")
        )

    def _end_value(self) -> None:
        if self._due is _Due.KEY:
            self._key, self._due = _string(self._raw), _Due.COLON
            return
        self._due = _Due.COMMA
        if self._key == NAME and not self.name:
            self.name = _string(self._raw)
            if not self.name:
                self._give_up()
        elif self._key == ARGUMENTS and not self._has_arguments:
            if self._raw.startswith("{"):
                self._has_arguments = True
            elif self._raw != "null":
                self._give_up()
        self._found_call()

    def _end_object(self) -> None:
        """A call without arguments has none."""
        if self.name and not self._has_arguments:
            self._arguments = "{}"
            self._found_call()
        if not self.is_call:
            self._give_up()

    def _found_call(self) -> None:
        self.is_call = self.is_call or bool(self.name and self._arguments)

    def _give_up(self) -> None:
        """Here is no JSON: the block ends here if it is a call, else it is none."""
        if self.is_call:
            self._due = _Due.CLOSE
        else:
            self._end(self._read)

    def _take_close(self) -> bool:
        if may_become(self._held, CLOSE):
            return False
        self._end(self._held.removeprefix(CLOSE))
        return True

    def _end(self, rest: str) -> None:
        self.over, self.rest, self._held = True, rest, ""


def _string(raw: str) -> str:
    """A JSON string's value; "" for whatever is none."""
    try:
        return str(json.loads(raw)) if raw.startswith('"') else ""
    except ValueError:
        return ""
