"""Answers read from bytes that arrive in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.bench.responses import BadResponse, Events, Response

BODY = b"data: {}\n\ndata: [DONE]\n\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"a\r\ndata: {}\n\n\r\ne;x=y\r\ndata: [DONE]\n\n\r\n0\r\nTrailer: 1\r\n\r\n"
)
SIZED = b"HTTP/1.1 404 Not Found\r\ncontent-length: 24\r\n\r\n" + BODY
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED
REST = b"HTTP/1.0 200 OK\r\n\r\n" + BODY


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % len(data) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


@given(
    st.sampled_from([(CHUNKED, 200), (SIZED, 404), (CONTINUED, 404), (REST, 200)]),
    st.lists(st.integers(0, 1000), max_size=12),
)
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(
    answer: tuple[bytes, int], cuts: list[int]
) -> None:
    data, status = answer
    response = Response()
    body = b"".join(response.feed(piece) for piece in pieces(data, cuts))
    assert (response.status, body) == (status, BODY)
    assert response.done == (data is not REST)
    assert response.end()
    assert response.keeps == (data is not REST)


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_events_are_whole_lines_of_data(cuts: list[int]) -> None:
    stream = ": ping\n\nevent: x\ndata: {é}\r\n\r\ndata:[DONE]\n\ndata: cut".encode()
    events = Events()
    found = [event for piece in pieces(stream, cuts) for event in events.feed(piece)]
    assert found == ["{é}".encode(), b"[DONE]"]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc",
        SIZED + b"x",
    ],
)
def test_what_is_no_answer_is_said_to_be_none(data: bytes) -> None:
    response = Response()
    with pytest.raises(BadResponse):
        for number in range(len(data)):
            response.feed(data[number : number + 1])


def test_an_answer_that_was_cut_off_is_not_whole() -> None:
    for data in (SIZED[:-1], CHUNKED[:-1], b"HTTP/1.1 200"):
        response = Response()
        response.feed(data)
        assert not response.end()
