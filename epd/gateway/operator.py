"""Orders of an operator: who may give them, and what they may say.

With `gateway.admin_key` whoever shows it, from anywhere. Without it only this machine, and never a
web page that somebody on it has open: those cannot send JSON to another origin unasked.
"""

from __future__ import annotations

import hmac
import ipaddress
from contextlib import aclosing

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from epd.errors import BadRequest, Forbidden, TooLarge
from epd.gateway.bodies import body_of
from epd.gateway.errors import from_validation

MOST_BYTES = 4096


class DrainOrder(BaseModel):
    """Which worker is to leave, and how long it may take."""

    model_config = ConfigDict(extra="forbid", strict=True)

    worker: str = Field(min_length=1, max_length=64)
    seconds: float | None = Field(None, ge=0, le=86400)


async def read_order(request: Request, admin_key: str, seconds: float) -> DrainOrder:
    """The order, if its sender may give one, and sends it in time. EpdError says what is wrong."""
    _check_sender(request, admin_key)
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise BadRequest("an order is application/json", param="content-type")
    body = b""
    async with aclosing(body_of(request, seconds)) as coming:
        async for chunk in coming:
            body += chunk
            if len(body) > MOST_BYTES:
                raise TooLarge(f"an order has at most {MOST_BYTES} bytes")
    try:
        return DrainOrder.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from None


def _check_sender(request: Request, admin_key: str) -> None:
    if admin_key:
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), admin_key.encode()):
            raise Forbidden("orders need the operator's key (gateway.admin_key)")
    elif not _is_near(request):
        raise Forbidden("orders are taken from this machine only, unless gateway.admin_key is set")


def _is_near(request: Request) -> bool:
    """From a process of this machine, as far as can be seen: nothing forwarded it."""
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "origin"))
    try:
        near = request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
    return near and not forwarded
