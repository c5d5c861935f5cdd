"""Every error that epd raises on purpose.

EpdError
|- BadRequest        400  the client can fix it; names the field
|  |- Unauthorized   401  no key, or one that nobody gave out
|  |- Forbidden      403  an order from somebody who may not give it
|  |- NotFound       404  unknown model or route
|  |- SlowSender     408  a body that did not come in time
|  |- TooLarge       413  a body or an inline file over its limit
|  `- BadMedia       422  an item that cannot be read; names the item
|- Overloaded        429  no worker has room
|- Cancelled         499  the client left
|- Unavailable       503  no worker of a stage, or it died with the request
|  `- TooLate        503  its deadline passed
|- InternalError     500  our fault; the text says which stage
|- ConfigError            a configuration that cannot work; the command exits with 2
|- UnsupportedModel       an architecture without an adapter
`- ProtocolError          bytes from the wire that are no valid message; dropped and counted
"""

from __future__ import annotations


class EpdError(Exception):
    """Base of all: `status` is HTTP's, `kind` OpenAI's error type, `code` a stable word."""

    status = 500
    kind = "server_error"
    code = "internal_error"
    retry_after_s: float | None = None
    """When to try again, as far as that is known."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class BadRequest(EpdError):
    """The client can fix it; `param` names the field."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_request"


class Unauthorized(BadRequest):
    """No key, or one that nobody gave out."""

    status = 401
    code = "invalid_api_key"


class Forbidden(BadRequest):
    """An order from somebody who may not give it."""

    status = 403
    code = "forbidden"


class NotFound(BadRequest):
    """An unknown model or route."""

    status = 404
    code = "not_found"


class SlowSender(BadRequest):
    """The body did not come in time."""

    status = 408
    code = "slow_sender"


class TooLarge(BadRequest):
    """A body or an inline file over its limit."""

    status = 413
    code = "too_large"


class BadMedia(BadRequest):
    """An item that cannot be fetched or read; the message names the item and the reason."""

    status = 422
    code = "invalid_media"


class Overloaded(EpdError):
    """No worker has room; try again later."""

    status = 429
    kind = "rate_limit_error"
    code = "overloaded"
    retry_after_s = 1.0


class Cancelled(EpdError):
    """The client left before the end."""

    status = 499
    code = "cancelled"


class Unavailable(EpdError):
    """No worker serves a stage that the request needs, or the one that had it died."""

    status = 503
    code = "unavailable"
    retry_after_s = 1.0


class TooLate(Unavailable):
    """The request's deadline passed before there was an answer."""

    code = "deadline"


class InternalError(EpdError):
    """A fault of ours; the message says which stage."""


class ConfigError(EpdError):
    """A configuration that cannot work, in words for the operator."""

    code = "config"


class UnsupportedModel(ConfigError):
    """No adapter for the checkpoint's architecture; lists those there are."""


class ProtocolError(EpdError):
    """Bytes from a peer that are no valid message. `reason` is a short word to count by."""

    code = "protocol"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


_BY_STATUS: dict[int, type[EpdError]] = {
    error.status: error
    for error in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        SlowSender,
        TooLarge,
        BadMedia,
        Overloaded,
        Cancelled,
        Unavailable,
    )
}


def from_status(status: int, message: str, *, code: str, param: str | None = None) -> EpdError:
    """Rebuild an error that travelled as (status, code, message, param)."""
    if (status, code) == (TooLate.status, TooLate.code):
        return TooLate(message, param=param)
    return _BY_STATUS.get(status, InternalError)(message, code=code, param=param)
