"""Replays a trace of Azure's public multimodal format, with made-up texts and pictures.

The file is CSV, or gzip of that, with the columns TIMESTAMP, NumImages, ContextTokens (of text and
pictures together) and GeneratedTokens. What was asked is not in it.
"""

from __future__ import annotations

import csv
import gzip
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from epd.bench.datasets.asks import Ask
from epd.bench.datasets.shape import Shape, with_items
from epd.bench.datasets.words import text
from epd.errors import ConfigError

COLUMNS = ("TIMESTAMP", "NumImages", "ContextTokens", "GeneratedTokens")
FRACTION = re.compile(r"(\.\d{6})\d+")
"""Datetimes have six digits after the point; these files have seven."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request of a trace."""

    at_s: float
    images: int
    context_tokens: int
    generated_tokens: int


def trace(shape: Shape) -> list[Ask]:
    """The first `num` requests at their times, over `trace_speed`.

    The text has the tokens that the pictures leave of the context, at least one.
    """
    if shape.path is None:
        raise ConfigError("--dataset-name trace needs --dataset-path FILE")
    rows = read_rows(_lines(Path(shape.path)), shape.path)[: shape.num]
    rng = random.Random(f"trace {shape.seed}")
    items = with_items(shape, [{"image": row.images} for row in rows])
    each = shape.measure.per_picture or 0.0
    return [
        Ask(
            text=text(rng, shape.measure.words(row.context_tokens - each * row.images)),
            items=pictures,
            output_tokens=max(1, row.generated_tokens),
            at_s=(row.at_s - rows[0].at_s) / shape.trace_speed,
        )
        for row, pictures in zip(rows, items, strict=True)
    ]


def read_rows(lines: Iterable[str], name: str) -> list[Row]:
    """In the order of their times. ConfigError names the line."""
    reader = csv.DictReader(lines)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"{name} has no column {', '.join(missing)}: no trace of this format")
    found = []
    for number, fields in enumerate(reader, 2):
        try:
            found.append(_row(fields))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{name}, line {number}: {error}") from error
    if not found:
        raise ConfigError(f"{name} has no requests")
    return sorted(found, key=lambda row: row.at_s)


def _row(fields: Mapping[str, str]) -> Row:
    counts = {name: int(float(fields[name])) for name in COLUMNS[1:]}
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"{name} is {count}")
    return Row(
        at_s=seconds(fields["TIMESTAMP"]),
        images=counts["NumImages"],
        context_tokens=counts["ContextTokens"],
        generated_tokens=counts["GeneratedTokens"],
    )


def seconds(moment: str) -> float:
    """A number of seconds, or a date and time."""
    try:
        return float(moment)
    except ValueError:
        at = datetime.fromisoformat(FRACTION.sub(r"\1", moment.strip()))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--dataset-path: {error}") from error
    plain = gzip.decompress(data) if path.suffix == ".gz" else data
    return plain.decode("utf-8-sig").splitlines()
