"""The load of `epd bench` for benchmarks that write their own requests: so many clients at once,
each with its next request when its last one has ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from epd.bench.asking import Prepared
from epd.bench.load import run_load as send
from epd.bench.records import Record

HEADERS = {"Content-Type": "application/json"}


def chat_body(model: str, messages: Sequence[Any], max_tokens: int) -> dict[str, Any]:
    """A greedy chat request whose answer has exactly so many tokens, shown with their ids."""
    return {
        "model": model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": 0,
        "repetition_penalty": 1.0,
        "ignore_eos": True,
        "return_token_ids": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def run_load(
    url: str,
    bodies: Iterable[dict[str, Any]],
    *,
    concurrency: int,
    timeout_s: float,
    on_end: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Send every body once; records in the order in which requests were sent."""
    requests = (
        Prepared(path="/chat/completions", body=(json.dumps(body).encode(),)) for body in bodies
    )
    run = await send(
        url,
        requests,
        headers=HEADERS,
        concurrency=concurrency,
        timeout_s=timeout_s,
        on_end=on_end,
    )
    if run.interrupted:
        raise KeyboardInterrupt
    return run.records
