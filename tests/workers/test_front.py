"""The gateway's HTTP socket."""

from __future__ import annotations

import asyncio
import socket

from epd.workers.front import bind


def test_connections_send_every_token_at_once() -> None:
    """With Nagle's algorithm a token waits for the receiver's ACK of the one before, 40 ms."""
    found: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect_once() -> None:
        with bind("127.0.0.1", 0) as http:
            async with await asyncio.start_server(answer, sock=http):
                reader, writer = await asyncio.open_connection(*http.getsockname())
                await reader.read()
                writer.close()
                await writer.wait_closed()

    asyncio.run(connect_once())

    assert found == [1]
