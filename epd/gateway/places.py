"""Other APIs are read as chats; what is wrong with them is named as their clients wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from epd.errors import EpdError

_PLACE = re.compile(r"\bmessages(?:\[(\d+)\](?:\.content\[(\d+)\])?)?")

Rename = Callable[[int | None, int | None], str]
"""From the numbers of a message and its part, None where none is named, to the client's words."""


@contextmanager
def named_as(rename: Rename, fields: Mapping[str, str] | None = None) -> Iterator[None]:
    """Errors that leave this block say `rename`'s words for places in the chat, and call `fields`
    of a chat by their values."""
    try:
        yield
    except EpdError as error:
        if error.param is not None:
            param = called(error.param, fields or {}) or _renamed(error.param, rename)
            error.message = error.message.replace(error.param, param)
            error.args = (error.message,)
            error.param = param
        raise


def called(param: str, fields: Mapping[str, str]) -> str | None:
    """A field of a chat, or what is inside of it; None: it has no other name."""
    for name, other in fields.items():
        if param == name or param.startswith((f"{name}.", f"{name}[")):
            return other + param.removeprefix(name)
    return None


def _renamed(text: str, rename: Rename) -> str:
    def words(match: re.Match[str]) -> str:
        message, part = match.groups()
        return rename(
            None if message is None else int(message), None if part is None else int(part)
        )

    return _PLACE.sub(words, text, count=1) if text.startswith("messages") else text
