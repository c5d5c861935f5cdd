"""What the server is asked before the load: what does it serve, how does it count."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from epd.bench.bodies import Writer
from epd.bench.datasets import Ask, Measure, Shape
from epd.bench.datasets.words import text
from epd.bench.load import run_load
from epd.bench.records import Record
from epd.errors import ConfigError

LOOK_S = 10.0
FEW_WORDS, MANY_WORDS = 16, 144


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One that answers. `url` stands before /v1; `info` is what it says of itself, if anything."""

    url: str
    model: str
    headers: Mapping[str, str]
    info: Any = None


def find_server(url: str, model: str | None, headers: Mapping[str, str]) -> Server:
    """ConfigError: nobody answers there as such a server does, or it serves no such model."""
    with httpx.Client(headers=dict(headers), timeout=LOOK_S, trust_env=False) as http:
        served = _models(http, url)
        if model is None and not served:
            raise ConfigError(f"{url}/v1/models names no model: say --model")
        if model is not None and served and model not in served:
            raise ConfigError(f"{url} serves no model {model!r}: it has {', '.join(served)}")
        return Server(url=url, model=model or served[0], headers=headers, info=_info(http, url))


def _models(http: httpx.Client, url: str) -> list[str]:
    address = f"{url}/v1/models"
    try:
        answer = http.get(address)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigError(f"no server answers at {url}: {error}") from error
    if answer.status_code in (401, 403):
        raise ConfigError(f"{address} is {answer.status_code}: say --api-key")
    if not answer.is_success:
        raise ConfigError(f"{address} is {answer.status_code}: is {url} the server's base URL?")
    try:
        return [str(one["id"]) for one in answer.json()["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{address} is no list of models: is {url} an API's URL?") from error


def _info(http: httpx.Client, url: str) -> Any:
    """What sglang's servers tell; others have no such page."""
    try:
        answer = http.get(f"{url}/server_info")
        return answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def measured(server: Server, writer: Writer, shape: Shape, timeout_s: float) -> Measure:
    """How the server counts texts like those of made-up data sets, from two short requests, and
    pictures of the data set's size from a third, where a trace counts these.

    A server that says no usage is taken to have one token per word. ConfigError: it refuses.
    """
    rng = random.Random(f"measure {shape.seed}")
    asks = [Ask(text=text(rng, num), output_tokens=1) for num in (FEW_WORDS, MANY_WORDS)]
    if shape.name == "trace":
        picture = shape.item("image", f"measure {shape.seed}")
        asks.append(Ask(text=text(rng, FEW_WORDS), items=(picture,), output_tokens=1))
    few, many, *pictured = _counts(server, writer, asks, timeout_s)
    if not 0 < few < many:
        return Measure()
    return Measure(
        per_word=(many - few) / (MANY_WORDS - FEW_WORDS),
        per_picture=max(0.0, pictured[0] - few) if pictured else None,
    )


def _counts(server: Server, writer: Writer, asks: list[Ask], timeout_s: float) -> list[int]:
    return [record.prompt_tokens for record in first_answers(server, writer, asks, timeout_s)]


def first_answers(
    server: Server,
    writer: Writer,
    asks: list[Ask],
    timeout_s: float,
    concurrency: int | None = 1,
) -> list[Record]:
    """Answers before anything is measured. ConfigError where there is none among them: what the
    server says against the first would be said against all."""
    prepared = writer.write(asks, [0.0] * len(asks))
    run = asyncio.run(
        run_load(
            server.url,
            prepared,
            headers=server.headers,
            concurrency=concurrency,
            timeout_s=timeout_s,
        )
    )
    if run.interrupted:
        raise KeyboardInterrupt
    if run.records and all(record.error for record in run.records):
        raise ConfigError(f"{server.url} does not answer: {run.records[0].error}")
    return run.records
