"""The path of a request as clients see it: JSON in milliseconds since the request's arrival."""

from __future__ import annotations

from typing import Any

from epd.observe.path import ItemPath, Path, Timed, Times, milliseconds
from epd.types import Stage


def shown(path: Path) -> dict[str, Any]:
    """`usage.epd` of an answer."""
    began = path.began
    found: dict[str, Any] = {
        "request_id": path.request_id,
        "attempts": path.attempts,
        "retries": path.retries,
        "ms": _moments(path),
        "items": [_item(index, item, began) for index, item in enumerate(path.items)],
    }
    for stage, part in path.parts.items():
        told: dict[str, Any] = {"worker": part.worker, **_times(part.times, began)}
        if stage is Stage.PREFILL:
            told["cached_tokens"] = path.num_cached_tokens
            told["chunks"] = [_chunk(num, span, began) for num, span in part.chunks]
        else:
            told["kv_bytes"] = part.num_bytes
        found[stage.value] = told
    return found


def _moments(path: Path) -> dict[str, float]:
    moments = {
        "layouts": path.laid_out,
        "admitted": path.admitted,
        "first_token": path.first_token,
        "total": path.ended,
    }
    return {name: milliseconds(at - path.began) for name, at in moments.items() if at is not None}


def _item(index: int, item: ItemPath, began: float) -> dict[str, Any]:
    return {
        "index": index,
        "modality": item.modality.value,
        "encoder": item.encoder,
        "attempts": item.attempts,
        "bytes": item.num_bytes,
        "rows": item.num_rows,
        "rows_sent": item.num_sent,
        "row_bytes": item.row_bytes,
        "cached": item.cached,
        "rows_from": None if item.origin is None else item.origin.value,
        "batch_items": item.batch_items,
        **_times(item.times, began),
    }


def _times(times: Times, began: float) -> dict[str, dict[str, float]]:
    return {
        "ms": {name.value: milliseconds(span.seconds) for name, span in times.items()},
        "began_ms": {name.value: _since(began, span) for name, span in times.items()},
    }


def _chunk(num_tokens: int, span: Timed, began: float) -> dict[str, float]:
    ms = milliseconds(span.seconds)
    return {"tokens": num_tokens, "began_ms": _since(began, span), "ms": ms}


def _since(began: float, span: Timed) -> float:
    """What a worker tells as an age may seem to have begun before the request, by the message's own
    way."""
    return max(0.0, milliseconds(span.began - began))
