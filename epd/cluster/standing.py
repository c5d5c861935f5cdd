"""Where a request stands, for people: what it waits for, on which workers, in which attempt."""

from __future__ import annotations

from typing import Any

from epd.cluster.requests import Item, Phase, Request

_WAITS = {
    Phase.ENCODING: "layouts of its items",
    Phase.WAITING: "room for its KV",
    Phase.RESERVING: "blocks on its decode worker",
    Phase.ADMITTING: "blocks on its prefill worker",
}


def standing(request: Request) -> dict[str, Any]:
    """In words and numbers; of the prompt and the answer only how long they are."""
    placed = request.placed
    return {
        "phase": request.phase.value,
        "waits_for": _WAITS.get(request.phase, _running(request)),
        "attempt": request.attempt,
        "workers_lost": request.deaths,
        "prefill": None if placed is None else placed.prefill,
        "decode": None if placed is None else placed.decode or placed.prefill,
        "refused_by": sorted(request.refused_by),
        "tokens": sum(request.num_emitted),
        "items": [_item(item) for item in request.items],
    }


def _running(request: Request) -> str:
    if not request.begun:
        return "prefill"
    return "decode"


def _item(item: Item) -> dict[str, Any]:
    state = "dropped" if item.dropped else "waits for its layout" if item.pending else "laid out"
    return {
        "item": item.name,
        "encoder": item.encoder,
        "state": "held: its KV may be cached" if item.held else state,
        "attempt": item.key.attempt,
    }
