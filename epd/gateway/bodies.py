"""The bytes of a request's body, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.requests import ClientDisconnect, Request

from epd.errors import Cancelled, SlowSender


async def body_of(request: Request, seconds: float) -> AsyncGenerator[bytes, None]:
    """Its chunks. SlowSender where they do not all come within so many seconds; Cancelled."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout_at(ends):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise SlowSender(f"the body did not come within {seconds:g} s") from None
        except ClientDisconnect:
            raise Cancelled("the client left while sending") from None
        yield chunk
