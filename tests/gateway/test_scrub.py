"""What is left of the server's own errors on their way out."""

from __future__ import annotations

import pytest

from epd.gateway.scrub import without_places


@pytest.mark.parametrize(
    "place",
    [
        "/home/somebody/models/x.safetensors",
        "/tmp/epd-1/encode-0.c",
        "~/models/a",
        "ipc:///tmp/epd/encode-0.c",
        "tcp://10.0.0.7:7400",
        "http://10.1.2.3/metadata",
        "10.0.0.7",
        "10.0.0.7:7400",
        "[fe80::1]:7400",
        "2001:db8:0:0:0:0:0:1",
        "0x7f3a12bc",
    ],
)
@pytest.mark.parametrize("text", ["prefill: cannot read {}", "({}): broken", "'{}' is not there"])
def test_places_inside_the_server_are_left_out(place: str, text: str) -> None:
    assert place in text.format(place)  # the control
    assert without_places(text.format(place)) == text.format("...")


@pytest.mark.parametrize(
    "message",
    [
        "encode-0 died; 3 workers were lost with this request",
        "image 2: encode: rows of shape (3, 4) where 5/6 were promised",
        "no answer within 600 s",
        "version 1.2.3 is not 1.2.4",
        "prefill and/or decode: at 12:30:05",
    ],
)
def test_what_is_no_place_stays(message: str) -> None:
    assert without_places(message) == message


def test_of_a_traceback_nothing_stays() -> None:
    text = 'decode: broken\nTraceback (most recent call last):\n  File "/a/b.py", line 3'
    assert without_places(text) == "decode: broken"
    assert without_places('x: Traceback (most recent call last): File "/a/b.py"') == "x:"


def test_a_long_one_is_cut() -> None:
    assert len(without_places("x" * 10_000)) <= 500
