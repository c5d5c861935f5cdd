"""Orders of an operator: who may give them, and what they may say.

With `gateway.admin_key` whoever shows it, from anywhere. Without it only this machine, and never a
web page that somebody on it has open: those cannot send JSON to another origin unasked.
"""

from __future__ import annotations

import hmac
import ipaddress

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from epd.errors import BadRequest, Forbidden, TooLarge
from epd.gateway.bodies import read_chunks
from epd.gateway.errors import from_validation

MOST_BYTES = 4096


class DrainOrder(BaseModel):
    """Which worker is to leave, and how long it may take."""

    model_config = ConfigDict(extra="forbid", strict=True)

    worker: str = Field(min_length=1, max_length=64)
    seconds: float | None = Field(None, ge=0, le=86400)


async def read_order(request: Request, admin_key: str, seconds: float) -> DrainOrder:
    """The order, if its sender may give one, and sends it in time. EpdError says what is wrong."""
    check_operator(request, admin_key)
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise BadRequest("an order is application/json", param="content-type")
    body = bytearray()

    def take(chunk: bytes) -> None:
        body.extend(chunk)
        if len(body) > MOST_BYTES:
            raise TooLarge(f"an order has at most {MOST_BYTES} bytes")

    await read_chunks(request, seconds, take)
    try:
        return DrainOrder.model_validate_json(bytes(body))
    except ValidationError as error:
        raise from_validation(error) from None


def check_operator(request: Request, admin_key: str) -> None:
    """Forbidden unless its sender is an operator."""
    if admin_key:
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), admin_key.encode()):
            raise Forbidden("this needs the operator's key (gateway.admin_key)")
    elif not _is_near(request):
        raise Forbidden(
            "this is for processes of this machine only, unless gateway.admin_key is set"
        )


def _is_near(request: Request) -> bool:
    """From a process of this machine, as far as can be seen: nothing forwarded it."""
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "origin"))
    try:
        near = request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
    return near and not forwarded
