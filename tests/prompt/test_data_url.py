"""Inline media, decoded strictly."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.errors import BadRequest
from epd.prompt.data_url import open_url


@given(st.binary(min_size=1), st.sampled_from(["image/png", "", "text/plain;charset=utf-8"]))
def test_base64_comes_back(data: bytes, kind: str) -> None:
    encoded = base64.b64encode(data).decode()
    assert open_url(f"data:{kind};base64,{encoded}", "x") == (None, data)
    escaped = encoded.replace("+", "%2B").replace("=", "%3d")
    assert open_url(f"DATA:{kind};BASE64,{escaped}", "x") == (None, data)


@given(st.binary(min_size=1))
def test_percent_encoding_comes_back(data: bytes) -> None:
    url = "data:image/png," + "".join(f"%{byte:02x}" for byte in data)
    assert open_url(url, "x") == (None, data)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("data:image/png;base64,aGVsbG8", "base64"),
        ("data:image/png;base64,aGVs bG8=", "base64"),
        ("data:image/png;base64,aGVs-_8=", "base64"),
        ("data:image/png;base64,\u00e9", "percent-encoded"),
        ("data:image/png,%zz", "percent-encoded"),
        ("data:image/png;base64,", "no data"),
        ("data:image/png;base64", "no comma"),
        ("file:///etc/passwd", "must begin with"),
        ("/etc/passwd", "must begin with"),
        ("", "must begin with"),
        ("https:///path", "no host"),
        ("http://[::1", "cannot be parsed"),
        ("https://example.org/" + "a" * 9000, "longer than"),
    ],
)
def test_a_bad_url_names_its_part_and_the_reason(url: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        open_url(url, "messages[2].content[1]")
    assert caught.value.param == "messages[2].content[1]"
    assert caught.value.message.startswith("messages[2].content[1]: ")


def test_web_urls_stay_as_they_are() -> None:
    url = "https://example.org/a.png?x=%20#y"
    assert open_url(url, "x") == (url, None)
