"""The bytes of a request's body, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request

from epd.errors import Cancelled, SlowSender


async def read_chunks(request: Request, seconds: float, take: Callable[[bytes], None]) -> None:
    """Each to `take`, whose errors end it. SlowSender where they do not all come within so many
    seconds; Cancelled.
    """
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                take(chunk)
    except TimeoutError:
        raise SlowSender(f"the body did not come within {seconds:g} s") from None
    except ClientDisconnect:
        raise Cancelled("the client left while sending") from None
