"""What is read in an answer's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPiece:
    """More of one tool call. `index` counts the calls of a choice; `name` comes whole, once, and
    first. The `arguments` of all pieces together are the JSON object, as the model wrote it."""

    index: int
    name: str = ""
    arguments: str = ""


class Reading(NamedTuple):
    """What one piece of text adds to an answer, possibly nothing."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallPiece, ...] = ()


NOTHING = Reading()


def joined_readings(readings: Sequence[Reading]) -> Reading:
    """What all of them add, with one piece per call."""
    if len(readings) < 2:
        return readings[0] if readings else NOTHING
    calls: dict[int, list[CallPiece]] = {}
    for reading in readings:
        for piece in reading.calls:
            calls.setdefault(piece.index, []).append(piece)
    return Reading(
        text="".join(reading.text for reading in readings),
        reasoning="".join(reading.reasoning for reading in readings),
        calls=tuple(
            CallPiece(
                index=index,
                name="".join(piece.name for piece in pieces),
                arguments="".join(piece.arguments for piece in pieces),
            )
            for index, pieces in calls.items()
        ),
    )
