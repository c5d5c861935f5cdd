"""Log lines."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from epd.observe import setup
from epd.types import ItemKey


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger, left as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_record_is_one_line_of_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, process and room first, then the message and what came with it."""
    setup("info", "encode-0")
    log = logging.getLogger("epd.encoder.core")
    log.info("two %s", "words", extra={"item": ItemKey("r", 1, 0), "stage": "fetch"})
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=info process=encode-0 room=encoder "
        r'msg="two words" item="ItemKey\(.*\)" stage=fetch\n',
        line,
    )


def test_no_text_starts_a_new_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a client's words nor a traceback."""
    setup("info", "gateway")
    log = logging.getLogger("epd.gateway")
    try:
        raise ValueError("bad\nlevel=error")
    except ValueError:
        log.exception("from a client: %s", 'x"\nlevel=error forged', extra={"k": "\r\u2028\x1b[0m"})
    out = capsys.readouterr().err
    assert out.count("\n") == 1 and out.endswith("\n")
    assert not set("\r\u2028\x1b") & set(out)
    assert "\\nlevel=error forged" in out and "traceback=" in out


def test_the_level_holds_and_libraries_are_their_own_room(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Below the level nothing is written."""
    setup("warning", "gateway")
    logging.getLogger("epd.gateway").info("quiet")
    logging.getLogger("httpcore.connection").warning("loud")
    assert capsys.readouterr().err.count("room=httpcore msg=loud") == 1


def test_a_second_setup_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    """One line per record, not two, and other handlers are left alone."""
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    setup("info", "one")
    setup("debug", "two")
    logging.getLogger("epd").debug("hello")
    err = capsys.readouterr().err
    assert err.count("msg=hello") == 1 and "process=two room=epd" in err
    assert other in logging.getLogger().handlers


def test_json_lines_are_one_object_each_with_the_same_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Numbers stay numbers; nothing that a client wrote starts a new line."""
    setup("info", "encode-0", "json")
    extra = {"request": "r1", "status": 422, "key": ItemKey("r", 1, 0)}
    logging.getLogger("epd.encoder.core").info("bad\nlevel=error", extra=extra)
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found["msg"] == "bad\nlevel=error" and found["process"] == "encode-0"
    assert (found["request"], found["status"]) == ("r1", 422)
    assert found["key"].startswith("ItemKey(")
