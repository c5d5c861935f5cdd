"""One way from anything that goes wrong to OpenAI's error body.

EpdError              its own status, kind, code and param: the table is epd/errors.py
ValidationError       400, param = path of the field, where a request is read
ClientDisconnect      499
routing               404 and 405
anything else         500, logged with its traceback, which never reaches a body
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from epd.errors import BadRequest, Cancelled, EpdError, InternalError, SlowSender, Unauthorized
from epd.gateway.schemas import TAGS
from epd.gateway.scrub import without_places

logger = logging.getLogger(__name__)


def error_body(error: EpdError) -> dict[str, Any]:
    """What clients read. The server's own faults are told without places inside it."""
    message = error.message if error.status < 500 else without_places(error.message)
    return {
        "error": {
            "message": message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_response(error: EpdError, headers: dict[str, str] | None = None) -> JSONResponse:
    """The body with its status, and Retry-After where that is known."""
    headers = dict(headers or {})
    if error.status == Unauthorized.status:
        headers["www-authenticate"] = "Bearer"
    if error.status == SlowSender.status:
        headers["connection"] = "close"  # what comes later is no request
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return JSONResponse(error_body(error), status_code=error.status, headers=headers)


def shaped(error: Exception) -> EpdError:
    """The error that a client is told of."""
    match error:
        case EpdError():
            return error
        case ClientDisconnect():
            return Cancelled("the client left while sending")
        case _:
            return unexpected(error)


def unexpected(error: BaseException) -> InternalError:
    """A fault of ours: the log gets the traceback, the client a sentence."""
    logger.error("gateway: unexpected error", exc_info=error)
    return InternalError("the gateway failed to handle this request")


def from_validation(error: ValidationError) -> BadRequest:
    """The first of pydantic's complaints, in OpenAI's form."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not valid JSON: {first['msg']}", code="invalid_json")
    param = param_path(first["loc"])
    message = f"{param}: {first['msg']}" if param else f"the body: {first['msg']}"
    return BadRequest(message, param=param)


def param_path(loc: Sequence[int | str]) -> str | None:
    """("messages", 0, "content", 1) as "messages[0].content[1]", without union tags."""
    path = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in TAGS:
            path += f".{step[:100]}" if path else step
    return path or None


def install(app: FastAPI) -> None:
    """Every error of every route ends here."""

    @app.exception_handler(EpdError)
    async def on_epd_error(request: Request, error: EpdError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        path = request.scope["path"][:200]
        told = BadRequest(f"{request.method} {path}: {error.detail}", code=code)
        told.status = error.status_code
        return error_response(told, dict(error.headers or {}))

    app.add_middleware(Barrier)


BODY = "epd.body"
"""Where a request's scope has the way of a body's parts: past all that only looks at headers."""


class Barrier:
    """The outer barrier of one request: no error leaves it but as an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        scope[BODY] = send

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            told = shaped(error)
            if started:
                raise  # the server cuts the connection: the client sees that the answer is broken
            await error_response(told)(scope, receive, send)
