"""Inline media, decoded strictly."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.errors import BadRequest, TooLarge
from epd.gateway import urls
from epd.prompt import Source
from epd.types import ItemForm

WHERE = "messages[2].content[1]"


def opened(url: str, *, frames: bool = False, most_bytes: int = 1 << 20) -> Source:
    return urls.open_inline(url, WHERE, frames=frames, most_bytes=most_bytes)


def encoded(*data: bytes) -> str:
    return ",".join(base64.b64encode(one).decode() for one in data)


@given(st.binary(min_size=1), st.sampled_from(["image/png", "", "text/plain;charset=utf-8"]))
def test_base64_comes_back(data: bytes, kind: str) -> None:
    text = encoded(data)
    assert opened(f"data:{kind};base64,{text}") == Source.file(data)
    escaped = text.replace("+", "%2B").replace("=", "%3d")
    assert opened(f"DATA:{kind};BASE64,{escaped}") == Source.file(data)


@given(st.binary(min_size=1))
def test_percent_encoding_comes_back(data: bytes) -> None:
    url = "data:image/png," + "".join(f"%{byte:02x}" for byte in data)
    assert opened(url) == Source.file(data)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5))
def test_frames_of_a_video_are_pieces_in_order(frames: list[bytes]) -> None:
    source = opened(f"data:video/jpeg;base64,{encoded(*frames)}", frames=True)
    assert source.form is ItemForm.FRAMES
    assert source.pieces == tuple((f"frame{k}", len(one)) for k, one in enumerate(frames))
    assert source.data == b"".join(frames)


@pytest.mark.parametrize("kind", ["video/mp4", "image/jpeg", "video/jpegs"])
def test_another_kind_has_no_frames(kind: str) -> None:
    url = f"data:{kind};base64,{encoded(b'one')}"
    assert opened(url, frames=True) == Source.file(b"one")
    with pytest.raises(BadRequest, match="base64"):
        opened(f"data:{kind};base64,{encoded(b'one', b'two')}", frames=True)


def test_a_picture_is_no_list_of_frames() -> None:
    """Whatever its media type says."""
    assert opened(f"data:video/jpeg;base64,{encoded(b'one')}") == Source.file(b"one")


def test_the_number_of_frames_has_a_limit() -> None:
    """Judged before any is decoded."""
    url = "data:video/jpeg;base64," + "," * urls.MOST_FRAMES
    with pytest.raises(BadRequest, match=f"{urls.MOST_FRAMES + 1} frames"):
        opened(url, frames=True)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64," + encoded(b"x" * 11),
        "data:image/png;base64," + encoded(b"x" * 12),
        "data:image/png," + "x" * 11,
        "data:video/jpeg;base64," + encoded(b"x" * 5, b"x" * 6),
    ],
)
def test_bytes_have_a_limit_for_the_whole_item(url: str) -> None:
    with pytest.raises(TooLarge, match=r"1[12] bytes, 10 are allowed") as caught:
        opened(url, frames=True, most_bytes=10)
    assert caught.value.param == WHERE
    assert opened(url, frames=True, most_bytes=12).num_bytes in (11, 12)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("data:image/png;base64,aGVsbG8", "base64"),
        ("data:image/png;base64,aGVs bG8=", "base64"),
        ("data:image/png;base64,aGVs-_8=", "base64"),
        ("data:image/png;base64,aGVsbG8=aGVsbG8=", "base64"),
        ("data:image/png;base64,%ff", "base64"),
        ("data:image/png;base64,\u00e9", "percent-encoded"),
        ("data:image/png,%zz", "percent-encoded"),
        ("data:image/png;base64,", "no data"),
        ("data:image/png;base64", "no comma"),
        ("data:video/jpeg;base64,", "frame0 holds no data"),
        ("data:video/jpeg;base64,aGk=,,aGk=", "frame1 holds no data"),
        ("data:video/jpeg;base64,aGk=,aG", "frame 1: its base64"),
    ],
)
def test_bad_inline_data_names_its_part_and_the_reason(url: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        opened(url, frames=True)
    assert caught.value.param == WHERE
    assert caught.value.message.startswith(f"{WHERE}: ")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "reads no local files"),
        ("FILE:/etc/passwd", "reads no local files"),
        ("/etc/passwd", "must begin with"),
        ("gopher://example.org/", "must begin with"),
        ("", "must begin with"),
        ("https:///path", "no host"),
        ("http://[::1", "cannot be parsed"),
        ("https://example.org/" + "a" * 9000, "longer than"),
    ],
)
def test_a_bad_url_names_its_part_and_the_reason(url: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        urls.check_url(url, WHERE, local=False)
    assert caught.value.param == WHERE
    assert caught.value.message.startswith(f"{WHERE}: ")


@pytest.mark.parametrize("url", ["https://example.org/a.png?x=%20#y", "HTTP://example.org"])
def test_web_urls_are_taken(url: str) -> None:
    urls.check_url(url, WHERE, local=False)


def test_local_files_are_taken_where_the_operator_lets_them() -> None:
    """Which of them is the encode worker's business."""
    urls.check_url("file:///media/cat.png", WHERE, local=True)
