"""What the cluster is told of an item's source."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from epd.prompt import Draft, MediaPart, Source
from epd.types import ItemForm, MediaOptions, Modality
from epd.workers.submissions import HASHED_AT_ONCE, digests


@pytest.mark.parametrize("size", [10, HASHED_AT_ONCE + 1])
def test_a_source_is_what_an_item_is_and_how_it_is_read(size: int) -> None:
    """However it is computed."""
    data = b"x" * size
    part = MediaPart(
        modality=Modality.IMAGE, source=Source.file(data), text_before="", index=0, where="here"
    )
    others = [
        replace(part, source=Source.file(data[1:] + b"y")),
        replace(part, source=Source(url="http://a/b")),
        replace(part, source=Source.of([("a", data[:1]), ("b", data[1:])], ItemForm.FRAMES)),
        replace(part, options=MediaOptions(siblings=2)),
    ]
    same = replace(part, index=1, text_before="more", where="there")

    found = asyncio.run(digests(Draft(text=(), parts=(part, same, *others))))
    assert len(found) == 6
    assert found[0] == found[1]
    assert len(set(found)) == 5 and b"" not in found
