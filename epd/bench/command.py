"""`epd bench`: find the server, warm it up, ask, and show what came of it, rate by rate."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import resource
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from epd.bench.arrivals import moments
from epd.bench.asking import Prepared
from epd.bench.bodies import Form, Writer
from epd.bench.datasets import Ask, Shape, asks
from epd.bench.items import ITEM_KINDS, Item
from epd.bench.load import Run, run_load, undisturbed
from epd.bench.options import Options, options
from epd.bench.progress import Progress
from epd.bench.result import Asked, details, result
from epd.bench.server import Server, find_server, first_answers, measured
from epd.bench.table import table
from epd.errors import ConfigError

WARMUP_TOKENS = 32
STOPPED = 130
AS_THEY_ARE = ("custom",)
"""Data sets whose lengths do not depend on how the server counts."""


def run(args: argparse.Namespace, api_key: str | None = None) -> int:
    """The exit code: 1 where a request failed, 130 after Ctrl-C.

    ConfigError: there is nothing to measure.
    """
    said = options(args, api_key)
    if said.plot is not None:
        _need_matplotlib()
    _raise_file_limit()
    server = find_server(said.url, said.model, said.headers)
    form = Form(model=server.model, api=said.api, ignore_eos=said.ignore_eos, extra=said.extra)
    shape = said.shape
    if shape.name not in AS_THEY_ARE:
        measure = measured(server, Writer(form), shape, said.timeout_s)
        shape = replace(shape, measure=measure)
    found: list[tuple[dict[str, Any], Run]] = []
    for number, rate in enumerate(said.rates):
        # So that no cache has the prompts of the run before.
        of_rate = replace(shape, seed=f"{shape.seed}.{number}" if number else shape.seed)
        found.append(_measure(said, server, Writer(form), of_rate, rate))
        if found[-1][1].interrupted:
            break
    if said.plot is not None:
        from epd.bench.plots import plot

        for file in plot(found, said.plot):
            print(file)
    return _exit_code([run for _, run in found])


def _measure(
    said: Options, server: Server, writer: Writer, shape: Shape, rate: float
) -> tuple[dict[str, Any], Run]:
    """One rate, shown and written."""
    wanted = asks(shape)
    timed = any(ask.at_s is not None for ask in wanted)
    due = moments(len(wanted), rate, said.burstiness, shape.seed)
    making = Progress("making requests", len(wanted), quiet=said.quiet)
    prepared = writer.write(wanted, due, making.step)
    _warm_up(said, server, writer, shape, wanted)
    run = _ask(said, server, prepared)
    found = result(_asked(said, server, shape, wanted, None if timed else rate), run)
    if timed:
        found["request_rate"] = "trace"
    print(table(found), flush=True)
    if said.output is not None:
        _append(said, found | (details(run) if said.details else {}))
    return found, run


def _warm_up(
    said: Options, server: Server, writer: Writer, shape: Shape, wanted: Sequence[Ask]
) -> None:
    """Requests like those to come but for their seed, and every item that comes again.

    Models may see an item alone in its request otherwise than one of several.
    """
    if said.warmup:
        other = replace(shape, seed=f"{shape.seed} warm-up", hit_rate=0.0, num=said.warmup)
        short = [
            replace(
                ask,
                output_tokens=min(ask.output_tokens or WARMUP_TOKENS, WARMUP_TOKENS),
                at_s=None,
            )
            for ask in asks(other)
        ]
        first_answers(server, writer, short, said.timeout_s, said.concurrency)
    pooled = _pooled(shape)
    again = dict.fromkeys(
        (item,) * min(2, len(ask.items)) for ask in wanted for item in ask.items if item in pooled
    )
    if again:
        first = [Ask(text="Again.", items=items, output_tokens=1) for items in again]
        first_answers(server, writer, first, said.timeout_s)


def _pooled(shape: Shape) -> set[Item]:
    """Every item that may come again."""
    if not shape.hit_rate:
        return set()
    return {item for kind in ITEM_KINDS for item in shape.pooled(kind)}


def _ask(said: Options, server: Server, prepared: Sequence[Prepared]) -> Run:
    progress = Progress("requests", len(prepared), quiet=said.quiet)
    with undisturbed():
        return asyncio.run(
            run_load(
                server.url,
                prepared,
                headers=server.headers,
                concurrency=said.concurrency,
                timeout_s=said.timeout_s,
                on_end=lambda _: progress.step(),
            )
        )


def _asked(
    said: Options, server: Server, shape: Shape, wanted: Sequence[Ask], rate: float | None
) -> Asked:
    pooled = _pooled(shape)
    items = [item for ask in wanted for item in ask.items]
    return Asked(
        backend=said.backend,
        dataset_name=shape.name,
        model=server.model,
        url=server.url,
        num_prompts=len(wanted),
        request_rate=rate,
        max_concurrency=said.concurrency,
        burstiness=said.burstiness,
        seed=shape.seed,
        input_len=shape.input_len,
        output_len=shape.output_len,
        range_ratio=shape.range_ratio,
        sharegpt_output_len=shape.sharegpt_output_len,
        tag=said.tag,
        goals_ms=said.goals_ms,
        num_items=len(items),
        num_repeated=sum(item in pooled for item in items),
        arguments=said.arguments,
        server_info=server.info,
    )


def _append(said: Options, found: dict[str, Any]) -> None:
    """JSON has no infinity: a rate without limit is the word inf."""
    assert said.output is not None
    try:
        with said.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(found), allow_nan=False) + "\n")
    except OSError as error:
        raise ConfigError(f"--output-file: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _exit_code(runs: Sequence[Run]) -> int:
    if any(run.interrupted for run in runs):
        return STOPPED
    return int(any(record.error for run in runs for record in run.records))


def _raise_file_limit() -> None:
    """Every request under way has a connection."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("--plot needs matplotlib: pip install 'epd[bench]'") from error
