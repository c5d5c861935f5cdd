"""The responses that can be continued or asked for again, with the media of their conversations.

A conversation is kept whole with each of its responses, so that none needs another one. Its media
are kept once, under their content's key, and may be forgotten before it. Thread-safe.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epd.errors import BadRequest
from epd.gateway.responses.shelf import Shelf

MEDIA = "$media"
"""The one key of an object that stands for a string of media: no client can write it there, for
where it stands the schema wants a string."""

SHORT = 256
"""Characters of a string that stays where it is."""

Item = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Items with keys in place of their media."""

    items: tuple[Item, ...] = ()
    num_bytes: int = 0

    def and_then(self, items: Sequence[Item]) -> Packed:
        """Followed by items without media."""
        size = self.num_bytes + len(json.dumps(items))
        return Packed(items=(*self.items, *items), num_bytes=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One response: what was answered, and all items before and in it."""

    response: dict[str, Any]
    conversation: Packed


class ResponseStore:
    """What this gateway keeps, within its bounds."""

    def __init__(
        self,
        *,
        most_bytes: int,
        tenant_bytes: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shelf: Shelf[Record | str] = Shelf(
            most_bytes=most_bytes, tenant_bytes=tenant_bytes, seconds=seconds
        )
        self._clock = clock
        self._lock = threading.Lock()

    def pack(self, tenant: str, items: Sequence[Item]) -> Packed:
        """From now on their media are kept. Takes a while where there is much of them."""
        media: dict[str, str] = {}
        packed = [_packed(item, media) for item in items]
        self._keep_media(tenant, media)
        return Packed().and_then(packed)

    def put(self, tenant: str, response: dict[str, Any], conversation: Packed) -> None:
        """Kept from now on under the response's id; one that is too large for the room is not."""
        record = Record(response=response, conversation=conversation)
        num_bytes = conversation.num_bytes + len(json.dumps(response))
        with self._lock:
            self._shelf.put(tenant, response["id"], record, num_bytes, self._clock())

    def find(self, tenant: str, response_id: str) -> Record | None:
        """What is kept under this id."""
        with self._lock:
            found = self._shelf.get(tenant, response_id, self._clock())
        return found if isinstance(found, Record) else None

    def unpack(self, tenant: str, packed: Packed) -> list[Item]:
        """All items with their media. BadRequest where some of them were forgotten."""
        return [_unpacked(item, lambda key: self._media(tenant, key)) for item in packed.items]

    def drop(self, tenant: str, response_id: str) -> bool:
        """Forget it; whether it was kept until now. Its media go when they are the oldest."""
        kept = self.find(tenant, response_id) is not None
        with self._lock:
            self._shelf.drop(tenant, response_id)
        return kept

    def export(self, tenant: str, response_id: str) -> bytes | None:
        """All of it for another gateway; what was forgotten is left out."""
        record = self.find(tenant, response_id)
        if record is None:
            return None
        items = record.conversation.items
        keys = sorted({key for item in items for key in _keys(item)})
        with self._lock:
            now = self._clock()
            media = {key: self._shelf.get(tenant, key, now) for key in keys}
        kept = {key: text for key, text in media.items() if text is not None}
        return json.dumps({"response": record.response, "items": items, "media": kept}).encode()

    def take(self, tenant: str, exported: bytes) -> None:
        """What another gateway exported is kept here, too."""
        found = json.loads(exported)
        self._keep_media(tenant, found["media"])
        self.put(tenant, found["response"], Packed().and_then(found["items"]))

    def _keep_media(self, tenant: str, media: Mapping[str, str]) -> None:
        with self._lock:
            now = self._clock()
            for key, text in media.items():
                self._shelf.put(tenant, key, text, len(text), now)

    def _media(self, tenant: str, key: str) -> str:
        with self._lock:
            found = self._shelf.get(tenant, key, self._clock())
        if not isinstance(found, str):
            raise BadRequest(
                "media of an earlier turn are not kept any more: send the conversation again "
                "instead of previous_response_id",
                param="previous_response_id",
                code="media_not_found",
            )
        return found

    @property
    def num_bytes(self) -> int:
        """Taken by all that is kept."""
        with self._lock:
            return self._shelf.num_bytes


def _packed(value: Any, media: dict[str, str], *, inside: bool = False) -> Any:
    """The same with keys in place of long strings inside of parts that are no text."""
    if isinstance(value, str):
        if not inside or len(value) < SHORT:
            return value
        key = hashlib.sha256(value.encode()).hexdigest()
        media[key] = value
        return {MEDIA: key}
    if isinstance(value, list):
        return [_packed(one, media, inside=inside) for one in value]
    if isinstance(value, dict):
        inside = inside or _is_media(value)
        return {name: _packed(one, media, inside=inside) for name, one in value.items()}
    return value


def _is_media(part: dict[str, Any]) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and kind.endswith(
        ("image", "video", "audio", "file", "image_url", "video_url", "audio_url", "series_url")
        + ("_embeds",)
    )


def _unpacked(value: Any, find: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_unpacked(one, find) for one in value]
    if isinstance(value, dict):
        if set(value) == {MEDIA}:
            return find(value[MEDIA])
        return {name: _unpacked(one, find) for name, one in value.items()}
    return value


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if set(value) == {MEDIA}:
            yield value[MEDIA]
            return
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _keys(one)
