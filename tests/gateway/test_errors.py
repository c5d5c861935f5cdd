"""The table of errors: what is documented is what clients get, whatever is raised."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect

import epd.errors
from epd.errors import (
    BadRequest,
    ConfigError,
    EpdError,
    InternalError,
    ProtocolError,
    Unauthorized,
    Unavailable,
    from_status,
)
from epd.gateway.errors import error_body, error_response, shaped

DOCS = Path(__file__).parents[2] / "docs" / "security.md"
NEVER_SENT = (ConfigError, ProtocolError)


def of_clients() -> list[type[EpdError]]:
    """Every error that a client may be told of."""
    return [
        error
        for error in vars(epd.errors).values()
        if isinstance(error, type)
        and issubclass(error, EpdError)
        and error is not EpdError
        and not issubclass(error, NEVER_SENT)
    ]


def test_the_documented_table_is_the_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| `(\w+)` \|", DOCS.read_text(), re.M)
    assert sorted(rows) == sorted({(str(e.status), e.kind, e.code) for e in of_clients()})
    waits = set(re.findall(r"^\| (\d+) .*`Retry-After` \|$", DOCS.read_text(), re.M))
    assert waits == {str(e.status) for e in of_clients() if e.retry_after_s is not None}


@pytest.mark.parametrize("kind", of_clients(), ids=lambda kind: kind.__name__)
def test_an_error_keeps_its_status_and_code_on_its_way_between_processes(
    kind: type[EpdError],
) -> None:
    again = from_status(kind.status, "why", code=kind.code)
    assert (again.status, again.kind, again.code) == (kind.status, kind.kind, kind.code)
    assert again.retry_after_s == kind.retry_after_s


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (BadRequest("x", param="n"), 400, "invalid_request"),
        (ClientDisconnect(), 499, "cancelled"),
        (RuntimeError("/secret/path"), 500, "internal_error"),
        (RecursionError(), 500, "internal_error"),
        (TimeoutError("10.0.0.7:7400"), 500, "internal_error"),
        (AssertionError("0x7f3a12bc"), 500, "internal_error"),
    ],
    ids=str,
)
def test_whatever_is_raised_has_a_row_in_the_table(
    raised: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        found = shaped(raised)
    assert (found.status, found.code) == (status, code)
    assert status < 500 or str(raised) not in str(error_body(found)) or not str(raised)
    assert bool(caplog.records) is (status == 500)


def test_what_workers_say_of_their_faults_loses_its_places() -> None:
    """Of the client's faults nothing is taken away: it wrote the path itself."""
    text = "encode: cannot read /models/secret/a.safetensors at 10.0.0.7:7400"
    for kind in (InternalError, Unavailable):
        assert error_body(kind(text))["error"]["message"] == "encode: cannot read ... at ..."
    assert error_body(BadRequest(text))["error"]["message"] == text


def test_who_has_no_key_is_told_how_to_show_one() -> None:
    assert error_response(Unauthorized("no key")).headers["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in error_response(BadRequest("x")).headers
