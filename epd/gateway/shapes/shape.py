"""What an API has to say how a completion looks. Nothing here sends anything."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic_core import to_json

from epd.errors import EpdError
from epd.gateway.completion import Completion, Piece
from epd.gateway.errors import error_body

_ENCODER = json.JSONEncoder(separators=(",", ":"))


class Event(NamedTuple):
    """One server-sent event: JSON, or what becomes JSON. Chat's have no name."""

    data: dict[str, Any] | bytes
    name: str = ""

    def written(self) -> bytes:
        """As it is sent."""
        data = self.data if isinstance(self.data, bytes) else ascii_json(self.data)
        name = f"event: {self.name}\n".encode("ascii") if self.name else b""
        return b"%sdata: %s\n\n" % (name, data)


def ascii_json(value: Any) -> bytes:
    """In ASCII: some clients take U+2028 and U+0085 for the end of a line."""
    data = to_json(value)
    return data if data.isascii() else _ENCODER.encode(value).encode("ascii")


class Shape(ABC):
    """One answer's form; made for one request and asked in the order of the methods here."""

    closing: ClassVar[bytes] = b"data: [DONE]\n\n"
    """What a stream ends with that has not failed."""

    broken_off: ClassVar[bytes] = b""
    """What one ends with that has."""

    async def begun(self, completion: Completion) -> None:
        """The first tokens are there: all is known that there is to know of the prompt."""
        return

    def seen(self, completion: Completion, piece: Piece) -> None:
        """One piece of an answer that is not streamed, as it comes."""
        return

    @abstractmethod
    def whole(self, completion: Completion, choices: Sequence[Piece]) -> dict[str, Any]:
        """The body of an answer that is not streamed; every choice is one piece."""

    @abstractmethod
    def piece(self, completion: Completion, piece: Piece) -> Iterable[Event]:
        """What a stream says of one piece; possibly nothing."""

    def written(self, completion: Completion, piece: Piece) -> bytes:
        """The same, as it is sent."""
        return b"".join(map(Event.written, self.piece(completion, piece)))

    @abstractmethod
    def ended(self, completion: Completion) -> Iterable[Event]:
        """What a stream says after the last piece."""

    def failed(self, error: EpdError) -> Iterable[Event]:
        """What a stream says that has begun and cannot go on."""
        return [Event(error_body(error))]
