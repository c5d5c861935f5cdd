"""What every server is asked, and what is kept of its answers.

A load is one shape of requests, equal for all servers; bench/peers/rows.py makes figures of it.
Seeds hold the round, so that no two rounds ask alike, and not the server, so that all ask alike.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.isolation import run_burst
from bench.peers.servers import Body
from bench.serving.cluster import NotMeasured
from bench.serving.load import run_load
from bench.serving.workload import Prompts, Workload, picture
from epd.bench.metrics import end_to_end_s, first_token_s, per_token_s
from epd.bench.records import Record

WARMUP_TOKENS = 4
TIMEOUT_S = 300.0
PICTURE = (224, 224)
"""64 tokens of a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`requests` by `clients`, each of which sends its next one when its last one has ended.

    `repeated`: so many of them show one of `pool` pictures that the warm-up has shown, the others a
    new one each. `streams` text streams run while the requests come, see bench/isolation.py.
    """

    name: str
    clients: int
    requests: int
    prompt_tokens: int
    max_tokens: int
    images: int = 0
    repeated: int = 0
    pool: int = 2
    streams: int = 0
    stream_tokens: int = 0
    rounds: Sequence[int] = (0,)

    def workload(self, seed: str) -> Workload:
        """Of its requests."""
        return Workload(
            prompt_tokens=self.prompt_tokens,
            images=self.images,
            max_tokens=self.max_tokens,
            picture=PICTURE,
            seed=f"{self.name} {seed}",
        )


LOADS: Mapping[str, Load] = {
    load.name: load
    for load in (
        Load(
            name="alone",
            clients=1,
            requests=2,
            prompt_tokens=128,
            max_tokens=32,
            rounds=(0, 1),
        ),
        Load(name="texts", clients=8, requests=8, prompt_tokens=128, max_tokens=32),
        Load(name="pictures", clients=8, requests=8, prompt_tokens=64, max_tokens=32, images=1),
        Load(
            name="four",
            clients=1,
            requests=2,
            prompt_tokens=64,
            max_tokens=2,
            images=4,
            rounds=(1,),
        ),
        Load(
            name="again",
            clients=1,
            requests=10,
            prompt_tokens=64,
            max_tokens=2,
            images=1,
            repeated=8,
            rounds=(1,),
        ),
        Load(
            name="mixed",
            clients=1,
            requests=1,
            prompt_tokens=96,
            max_tokens=2,
            images=8,
            streams=3,
            stream_tokens=32,
            rounds=(1,),
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Everything that a load sends to one server in one round."""

    warmup: Sequence[dict[str, Any]]
    bodies: Sequence[dict[str, Any]]
    streams: Sequence[dict[str, Any]]


def asked(load: Load, prompts: Prompts, body: Body, model: str, seed: str) -> Asked:
    """The bodies, in the server's own form."""
    if load.repeated:
        return _repeated(load, prompts, body, model, seed)

    def bodies(workload: Workload, num: int) -> list[dict[str, Any]]:
        return [
            body(model, prompts.messages(workload, number), workload.max_tokens)
            for number in range(num)
        ]

    of_load = load.workload(seed)
    short = replace(of_load, max_tokens=WARMUP_TOKENS, seed=f"{of_load.seed} warm-up")
    text = Workload(prompt_tokens=64, images=0, max_tokens=load.stream_tokens, seed=seed)
    return Asked(
        warmup=bodies(short, 1),
        bodies=bodies(of_load, load.requests),
        streams=bodies(text, load.streams),
    )


def _repeated(load: Load, prompts: Prompts, body: Body, model: str, seed: str) -> Asked:
    """Pictures of a pool, which the warm-up shows under other questions, among new ones."""
    rng = random.Random(f"{load.name} {seed}")
    pool = [picture(PICTURE, rng) for _ in range(load.pool)]
    shown = [rng.choice(pool) for _ in range(load.repeated)]
    shown += [picture(PICTURE, rng) for _ in range(load.requests - load.repeated)]
    rng.shuffle(shown)

    def bodies(urls: Iterable[str]) -> list[dict[str, Any]]:
        return [
            body(model, _about(url, prompts.text(rng, load.prompt_tokens, 1)), load.max_tokens)
            for url in urls
        ]

    return Asked(warmup=bodies(pool), bodies=bodies(shown), streams=())


def _about(url: str, text: str) -> list[dict[str, Any]]:
    image = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [image, {"type": "text", "text": text}]}]


def measure(load: Load, asked: Asked, url: str) -> dict[str, Any]:
    """What came of it, times in seconds. NotMeasured: a request failed or had another length."""
    if load.streams:
        return asyncio.run(_mixed(load, asked, url))
    records = asyncio.run(_plain(load, asked, url))
    _check(records, load.max_tokens)
    return {"seconds": max(record.ended for record in records), "requests": _kept(records)}


async def _plain(load: Load, asked: Asked, url: str) -> list[Record]:
    await _warm_up(url, asked.warmup)
    return await run_load(f"{url}/v1", asked.bodies, concurrency=load.clients, timeout_s=TIMEOUT_S)


async def _warm_up(url: str, bodies: Sequence[dict[str, Any]]) -> None:
    records = await run_load(f"{url}/v1", bodies, concurrency=1, timeout_s=TIMEOUT_S)
    if errors := [record.error for record in records if record.error]:
        raise NotMeasured(f"the warm-up failed: {errors[0]}")


async def _mixed(load: Load, asked: Asked, url: str) -> dict[str, Any]:
    run = await run_burst(
        f"{url}/v1",
        "",
        warm=[*asked.warmup],
        streams=list(asked.streams),
        burst=list(asked.bodies),
        before_s=2.0,
        timeout_s=TIMEOUT_S,
    )
    _check(run.burst, load.max_tokens)
    _check(run.streams, load.stream_tokens)
    beside = [stream for stream in run.streams if stream.ended > run.began]
    return {
        "seconds": run.ended - run.began,
        "requests": _kept(run.burst),
        "streams": _kept(beside),
        "gaps": sorted(round(gap, 5) for gap in run.gaps_s(inside=True)),
    }


def _check(records: Sequence[Record], max_tokens: int) -> None:
    for record in records:
        if record.error:
            raise NotMeasured(f"a request failed: {record.error}")
        if record.completion_tokens != max_tokens:
            raise NotMeasured(f"{record.completion_tokens} tokens where {max_tokens} were due")


def _kept(records: Iterable[Record]) -> list[dict[str, Any]]:
    return [
        {
            "prompt_tokens": record.prompt_tokens,
            "tokens": record.completion_tokens,
            "ttft": first_token_s(record),
            "tpot": per_token_s(record),
            "seconds": end_to_end_s(record),
        }
        for record in records
    ]
