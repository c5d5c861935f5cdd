"""Settings of the Qwen-VL processors that a client may choose: how many pixels are kept.

`min_pixels` and `max_pixels` are other names of the two edges of `size`. They count the pixels of
a picture or frame; in Qwen3-VL's videos those of all frames together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from epd.errors import BadRequest

PICTURE_OPTIONS = ("min_pixels", "max_pixels", "size")
VIDEO_OPTIONS = (*PICTURE_OPTIONS, "cap_pixels_per_frame")

_EDGES = ("shortest_edge", "longest_edge")


def settings(asked: str, allowed: Sequence[str], processor: Any) -> dict[str, Any]:
    """What the processor is called with for this JSON object of options.

    BadRequest for an unknown option, a wrong value, and more pixels than the checkpoint's own
    settings allow.
    """
    options = _object(asked)
    if unknown := sorted(set(options) - set(allowed)):
        raise BadRequest(
            f"mm_processor_kwargs: {unknown[0]} is none of {', '.join(allowed)}",
            param="mm_processor_kwargs",
        )
    found: dict[str, Any] = {}
    if edges := _edges(options):
        own = {edge: int(getattr(processor.size, edge)) for edge in _EDGES}
        found["size"] = _within(own, own | edges)
    if "cap_pixels_per_frame" in options:
        if not isinstance(options["cap_pixels_per_frame"], bool):
            raise _wrong("cap_pixels_per_frame is not true or false")
        found["cap_pixels_per_frame"] = options["cap_pixels_per_frame"]
    return found


def _object(asked: str) -> dict[str, Any]:
    try:
        options = json.loads(asked or "{}")
    except ValueError as error:
        raise _wrong(f"no JSON: {error}") from error
    if not isinstance(options, dict):
        raise _wrong("not a JSON object")
    return options


def _edges(options: dict[str, Any]) -> dict[str, int]:
    size = options.get("size", {})
    if not isinstance(size, dict) or set(size) - set(_EDGES):
        raise _wrong(f"size is not an object of {' and '.join(_EDGES)}")
    named = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
    edges = dict(size) | {edge: options[name] for edge, name in named.items() if name in options}
    for edge, value in edges.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _wrong(f"{named[edge]} is {value!r}, not a positive number of pixels")
    return edges


def _within(own: dict[str, int], size: dict[str, int]) -> dict[str, int]:
    if size["longest_edge"] > own["longest_edge"]:
        raise _wrong(
            f"max_pixels is {size['longest_edge']}; this model's own is {own['longest_edge']}"
        )
    if size["shortest_edge"] > size["longest_edge"]:
        raise _wrong(
            f"min_pixels is {size['shortest_edge']}, more than max_pixels {size['longest_edge']}"
        )
    return size


def _wrong(reason: str) -> BadRequest:
    return BadRequest(f"mm_processor_kwargs: {reason}", param="mm_processor_kwargs")
