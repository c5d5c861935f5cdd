"""From a validated request to what the cluster is asked for."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable, Iterator

from epd.cluster import ItemJob, Submission
from epd.gateway.service import CallSpec
from epd.media.sizes import picture_pixels
from epd.prompt import Draft, MediaPart
from epd.types import ItemForm, Modality

HASHED_AT_ONCE = 1 << 16
"""Bytes of media that are hashed on the loop; more would stop it for too long."""

_ID_BYTES = 12
_IDS_AT_ONCE = 64


def fresh_ids() -> Iterator[str]:
    """Ids of 96 random bits, which nobody can guess. Many at once: the system's randomness lets go
    of the interpreter, which then is another thread's for longer than all the rest takes.
    """
    while True:
        drawn = os.urandom(_ID_BYTES * _IDS_AT_ONCE).hex()
        for at in range(0, len(drawn), 2 * _ID_BYTES):
            yield drawn[at : at + 2 * _ID_BYTES]


def submission(request_id: str, call: CallSpec, sources: list[bytes]) -> Submission:
    """`sources` has a digest per item."""
    items = tuple(
        ItemJob(
            modality=part.modality,
            url=part.source.url,
            text_before=part.text_before,
            source=source,
            form=part.source.form,
            pieces=part.source.pieces,
            options=part.options,
            num_bytes=part.source.num_bytes,
            pixels=_pixels(part),
        )
        for part, source in zip(call.draft.parts, sources, strict=True)
    )
    return Submission(
        request_id=request_id,
        text=call.draft.text,
        items=items,
        sampling=call.sampling,
        cache_salt=call.cache_salt,
        priority=call.priority,
        tells_prompt=call.tells_prompt,
    )


def _pixels(part: MediaPart) -> int:
    """Of an inline picture, or of a video's first frame; 0 where that cannot be seen."""
    pictures = part.modality is Modality.IMAGE or part.source.form is ItemForm.FRAMES
    if part.source.data is None or part.source.form is ItemForm.EMBEDS or not pictures:
        return 0
    return picture_pixels(part.source.data) or 0


async def digests(draft: Draft) -> list[bytes]:
    """One per item; of large files away from the loop."""
    if sum(part.source.num_bytes for part in draft.parts) <= HASHED_AT_ONCE:
        return _digests(draft.parts)
    return await asyncio.to_thread(_digests, draft.parts)


def _digests(parts: Iterable[MediaPart]) -> list[bytes]:
    return [_digest(part) for part in parts]


def _digest(part: MediaPart) -> bytes:
    """What the item is and how it is read; of an address, not of what is there."""
    source = part.source
    digest = hashlib.sha256(repr((source.url, source.form, source.pieces, part.options)).encode())
    digest.update(source.data or b"")
    return digest.digest()
