"""Asks: so many clients at once, each with its next request when its last one has ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(slots=True, kw_only=True)
class Record:
    """One streamed answer. Times are seconds since the first request of its run was sent.

    `arrivals` has (time, tokens) of every event that brought tokens.
    """

    sent: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    ended: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    text: str = ""
    error: str = ""


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
    records: list[Record] = []
    todo = iter(bodies)
    began = time.perf_counter()
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=timeout_s, limits=limits) as http:

        async def client(mine: Iterator[dict[str, Any]]) -> None:
            for body in mine:
                record = Record(sent=time.perf_counter() - began)
                records.append(record)
                await _ask(http, body, record, began)
                on_end(record)

        async with asyncio.TaskGroup() as clients:
            for _ in range(concurrency):
                clients.create_task(client(todo))
    return records


async def _ask(http: httpx.AsyncClient, body: dict[str, Any], record: Record, began: float) -> None:
    try:
        async with http.stream("POST", "/chat/completions", json=body) as response:
            if response.is_error:
                await response.aread()
                record.error = f"{response.status_code} {response.text.strip()}"
                return
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    _hear(record, json.loads(line[6:]), time.perf_counter() - began)
    except (httpx.HTTPError, ValueError) as error:
        record.error = f"{type(error).__name__}: {error}"
    finally:
        record.ended = time.perf_counter() - began


def _hear(record: Record, event: dict[str, Any], now: float) -> None:
    """A server that shows no token ids is taken to send one token per event with text."""
    if event.get("error"):
        record.error = json.dumps(event["error"])
    if usage := event.get("usage"):
        record.prompt_tokens = usage["prompt_tokens"]
        record.completion_tokens = usage["completion_tokens"]
        details = usage.get("prompt_tokens_details") or {}
        record.cached_tokens = details.get("cached_tokens") or 0
    for choice in event.get("choices", ()):
        text = choice["delta"].get("content") or ""
        ids = choice.get("token_ids")
        num = len(ids) if ids is not None else int(bool(text))
        record.text += text
        if num:
            record.arrivals.append((now, num))
