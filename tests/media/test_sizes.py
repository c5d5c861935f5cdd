"""Sizes of pictures, read without decoding them."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from epd.media.sizes import picture_pixels


def picture(kind: str, size: tuple[int, int] = (37, 11), **options: object) -> bytes:
    """A file of this kind."""
    file = io.BytesIO()
    Image.new("RGB", size, (9, 8, 7)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_the_header_tells(kind: str) -> None:
    assert picture_pixels(picture(kind)) == 37 * 11


def test_a_thumbnail_inside_is_not_the_picture() -> None:
    """It stands before the frame, in a segment of its own."""
    thumbnail = picture("JPEG", (4, 3))
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    large = picture("JPEG", (64, 48), progressive=True)
    assert picture_pixels(large[:2] + segment + large[2:]) == 64 * 48


@given(st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF"]))
def test_what_is_cut_off_tells_nothing(head: bytes) -> None:
    assert picture_pixels(head) is None


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"BM", b"GIF89a"]))
def test_no_bytes_break_it(data: bytes, head: bytes) -> None:
    """They come from strangers."""
    found = picture_pixels(head + data)
    assert found is None or found >= 0
