"""The load's connections, against servers that do what is written here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from epd.bench.asking import Prepared
from epd.bench.load import Run, run_load

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

BODY = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[str]:
    """Runs `talk` on every connection; its URL."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(one, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    return head + await reader.readexactly(length)


def ask(
    talk: Talk,
    num: int = 1,
    *,
    body: bytes = b"{}",
    concurrency: int = 1,
    timeout_s: float = 30.0,
    stop_after_s: float | None = None,
) -> Run:
    async def run() -> Run:
        async with server(talk) as url:
            task = asyncio.create_task(
                run_load(
                    url,
                    [Prepared(path="/x", body=(body,))] * num,
                    headers={"A": "b"},
                    concurrency=concurrency,
                    timeout_s=timeout_s,
                )
            )
            if stop_after_s is not None:
                asyncio.get_running_loop().call_later(stop_after_s, task.cancel)
            return await task

    return asyncio.run(run())


def test_a_connection_is_used_again() -> None:
    connections: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        while True:
            request = await read_request(reader)
            assert request.startswith(b"POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:")
            assert request.endswith(b"\r\nA: b\r\nContent-Length: 2\r\n\r\n{}")
            connections[-1] += 1
            writer.write(ANSWER)

    run = ask(talk, 6, concurrency=2)
    assert [record.text for record in run.records] == ["a"] * 6
    assert sum(connections) == 6
    assert len(connections) == 2


def test_a_request_that_met_a_closing_connection_is_sent_again() -> None:
    """The server closes after an answer, without having said so."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER)

    assert [record.error for record in ask(talk, 5).records] == [""] * 5


def test_a_server_that_closes_without_an_answer_is_an_error() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    (record,) = ask(talk).records
    assert record.cause == "connection"


def test_an_answer_that_is_cut_off_is_an_error_whose_tokens_are_kept() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER[:-10])

    (record,) = ask(talk).records
    assert record.error == "broken answer: the connection was closed within the answer"
    assert len(record.arrivals) == 1


def test_a_stream_without_its_end_mark_is_an_error() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + BODY.partition(b"data: [")[0])

    (record,) = ask(talk).records
    assert record.error == "broken answer: the stream ended without [DONE]"


def test_a_refusal_before_the_body_is_read_is_heard() -> None:
    """Megabytes that nobody takes do not keep the answer back."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 29\r\n\r\n")
        writer.write(b'{"error":{"message":"no"}}   ')
        await asyncio.Event().wait()

    run = ask(talk, 2, body=bytes(32 << 20))
    assert [record.error for record in run.records] == ["HTTP 413: no"] * 2


def test_a_server_that_says_nothing_is_given_up() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    (record,) = ask(talk, timeout_s=0.05).records
    assert record.error == "timeout: no whole answer within 0.05 s"
    assert record.ended >= record.sent + 0.05


def test_what_was_stopped_half_way_is_told_as_far_as_it_went() -> None:
    answered = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while answered < 2:
            await read_request(reader)
            answered += 1
            writer.write(ANSWER)
        await asyncio.Event().wait()

    run = ask(talk, 5, stop_after_s=0.5)
    assert run.interrupted
    assert [record.error for record in run.records] == ["", "", "interrupted"]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_than_allowed_are_under_way(concurrency: int) -> None:
    """And as many as that: nobody is answered before all of them are there."""
    running = most = 0
    all_there = asyncio.Barrier(concurrency)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running, most
        while True:
            await read_request(reader)
            running += 1
            most = max(most, running)
            await all_there.wait()
            running -= 1
            writer.write(ANSWER)

    run = ask(talk, 9, concurrency=concurrency)
    assert len(run.records) == 9
    assert most == concurrency
