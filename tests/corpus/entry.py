"""One thing a client may send, and what must come of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

OK = (200,)
BAD = (422,)
REFUSED = (400,)
TOO_LARGE = (413, 422)
NO_WORSE = (200, 422)
"""For files whose damage a decoder may overcome or not; both are right, nothing else is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A content part of the chat API. `word` stands in the reason, if the answer is not 200.

    `extra` are further fields of the request's body.
    """

    name: str
    part: dict[str, Any]
    statuses: tuple[int, ...] = OK
    word: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def url_part(modality: str, url: str) -> dict[str, Any]:
    """A part that names its media by URL."""
    return {"type": f"{modality}_url", f"{modality}_url": {"url": url}}


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def data_url(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64_text(data)}"


def of_file(
    modality: str,
    mime: str,
    name: str,
    data: bytes,
    statuses: tuple[int, ...] = OK,
    word: str = "",
) -> Entry:
    """One file inside a data: URL."""
    return Entry(f"{modality}: {name}", url_part(modality, data_url(data, mime)), statuses, word)
