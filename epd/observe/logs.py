"""Log lines: one per record, key=value or one JSON object, to stderr.

    time=2030-01-31T12:00:00.123Z level=info process=encode-0 room=encoder msg="..." request=...

Fields come through logging's own `extra={"request": ...}`. Whatever a client or a peer wrote into a
value stays inside its quotes: no text can start a new line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+\-]+")
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}


class LineFormatter(logging.Formatter):
    """A record as one line; a traceback is its last field."""

    def __init__(self, process: str, style: str = "line") -> None:
        super().__init__()
        self._process = process
        self._write = _json if style == "json" else _line

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "room": _room(record.name),
            "msg": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return self._write(fields)


class _LineHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Ours, so that a second setup replaces it and nothing else."""


def setup(level: str, name: str, style: str = "line") -> None:
    """Send every record of this process to stderr; again replaces the former setup.

    `style`: "line" for key=value, "json" for JSON objects.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _LineHandler):
            root.removeHandler(handler)
            handler.close()
    handler = _LineHandler(sys.stderr)
    handler.setFormatter(LineFormatter(name, style))
    root.addHandler(handler)
    root.setLevel(level.upper())


def _line(fields: Mapping[str, object]) -> str:
    return " ".join(f"{key}={_value(value)}" for key, value in fields.items())


def _json(fields: Mapping[str, object]) -> str:
    """Numbers stay numbers; all else is text, in ASCII."""
    plain = (bool, int, float, type(None))
    return json.dumps({k: v if isinstance(v, plain) else str(v) for k, v in fields.items()})


def _room(logger: str) -> str:
    """`epd.encoder.core` is of the room encoder; a library is its own."""
    parts = logger.split(".")
    return parts[1] if parts[0] == "epd" and len(parts) > 1 else parts[0]


def _time(created: float) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
    return f"{stamp}.{int(created * 1000) % 1000:03d}Z"


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
