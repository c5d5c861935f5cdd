"""One JSON object per run, with the keys of sglang's tool, and more. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from epd.bench import metrics
from epd.bench.load import Run
from epd.bench.metrics import Spread
from epd.bench.records import Record

TIMES: dict[str, Callable[[Record], float | None]] = {
    "e2e_latency": metrics.end_to_end_s,
    "ttft": metrics.first_token_s,
    "tpot": metrics.per_token_s,
}
VISION, AUDIO = ("image", "video"), ("audio", "time_series")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a run was told. `arguments` are all of the command's, `num_items` and `num_repeated`
    count the items in it and those that the warm-up had sent."""

    backend: str
    dataset_name: str
    model: str
    url: str
    num_prompts: int
    request_rate: float | None
    max_concurrency: int | None
    burstiness: float = 1.0
    seed: str = "1"
    input_len: int | None = None
    output_len: int | None = None
    range_ratio: float | None = None
    sharegpt_output_len: int | None = None
    tag: str | None = None
    goals_ms: Mapping[str, float] = field(default_factory=dict)
    num_items: int = 0
    num_repeated: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    server_info: Any = None


def result(asked: Asked, run: Run) -> dict[str, Any]:
    """Times are in milliseconds, but `duration`; what is not known is null."""
    good = [record for record in run.records if not record.error]
    found = {**_head(asked), **_totals(asked, run, good), **_rates(run, good), **_times(good)}
    found |= {
        "concurrency": _per_s(math.fsum(map(metrics.end_to_end_s, good)), run),
        "accept_length": None,
        "max_output_tokens_per_s": metrics.most_tokens_in_a_second(good),
        "max_concurrent_requests": metrics.most_at_once(good),
    }
    if asked.goals_ms:
        found |= _goals(asked, run)
    return found | _ours(asked, run, good)


def _head(asked: Asked) -> dict[str, Any]:
    return {
        "tag": asked.tag,
        "backend": asked.backend,
        "dataset_name": asked.dataset_name,
        "request_rate": asked.request_rate,
        "max_concurrency": asked.max_concurrency,
        "sharegpt_output_len": asked.sharegpt_output_len,
        "random_input_len": asked.input_len,
        "random_output_len": asked.output_len,
        "random_range_ratio": asked.range_ratio,
        "server_info": asked.server_info,
    }


def _totals(asked: Asked, run: Run, good: Sequence[Record]) -> dict[str, Any]:
    """All counts are the server's; nothing is tokenised here, so nothing is once more either.

    A server that does not say which tokens are an item's leaves the parts of the input unknown.
    """
    output = sum(record.output_tokens for record in good)
    vision, audio = (
        sum(record.item_tokens.get(kind, 0) for record in good for kind in kinds)
        for kinds in (VISION, AUDIO)
    )
    told = not asked.num_items or any(record.item_tokens for record in good)
    total = sum(record.prompt_tokens for record in good)
    return {
        "duration": run.seconds,
        "completed": len(good),
        "total_input_tokens": total,
        "total_input_text_tokens": total - vision - audio if told else None,
        "total_input_vision_tokens": vision if told else None,
        "total_input_audio_tokens": audio if told else None,
        "total_output_tokens": output,
        "total_output_tokens_retokenized": output,
    }


def _rates(run: Run, good: Sequence[Record]) -> dict[str, Any]:
    read = sum(record.prompt_tokens for record in good)
    written = sum(record.output_tokens for record in good)
    return {
        "request_throughput": _per_s(len(good), run),
        "input_throughput": _per_s(read, run),
        "output_throughput": _per_s(written, run),
        "total_throughput": _per_s(read + written, run),
    }


def _per_s(amount: float, run: Run) -> float | None:
    return amount / run.seconds if run.seconds else None


def _times(good: Sequence[Record]) -> dict[str, Any]:
    spreads = {name: Spread.of(map(of, good), 1000) for name, of in TIMES.items()}
    gaps = [gap for record in good for gap in metrics.gaps_s(record)]
    spreads["itl"] = Spread.of(gaps, 1000)
    return {
        f"{part}_{name}_ms": value
        for name, spread in spreads.items()
        for part, value in asdict(spread).items()
        if part != "max" or name == "itl"
    }


def _goals(asked: Asked, run: Run) -> dict[str, Any]:
    found = metrics.goodput(run.records, asked.goals_ms, run.seconds)
    return {
        "goodput_slos_ms": dict(asked.goals_ms),
        "request_goodput": found.per_s,
        "slo_attainment": found.share,
        "slo_attainment_by_metric": found.share_by_goal,
    }


def _ours(asked: Asked, run: Run, good: Sequence[Record]) -> dict[str, Any]:
    """What the known tools lack."""
    sent = sum(record.sent_bytes for record in run.records)
    lateness = Spread.of(map(metrics.lateness_s, run.records), 1000)
    return {
        "date": datetime.fromtimestamp(run.started_at, UTC).isoformat(timespec="seconds"),
        "model_id": asked.model,
        "base_url": asked.url,
        "num_prompts": asked.num_prompts,
        "burstiness": asked.burstiness,
        "seed": asked.seed,
        "interrupted": run.interrupted,
        "failed": len(run.records) - len(good),
        "failures": _failures(run.records),
        "wrong_lengths": sum(map(_wrong_length, good)),
        "total_cached_tokens": sum(record.cached_tokens for record in good),
        "stages_ms": stages(good),
        "items": {
            "asked": asked.num_items,
            "repeated": asked.num_repeated,
            "cached": _cached(good),
        },
        "generator": {
            "p99_lateness_ms": lateness.p99,
            "max_lateness_ms": lateness.max,
            "sent_mb_per_s": _per_s(sent / 1e6, run),
        },
        "arguments": dict(asked.arguments),
    }


def _failures(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """By cause: how many, and the whole words of the first."""
    first = {record.cause: record.error for record in reversed(records) if record.error}
    return {
        cause: {"count": num, "first": first[cause]}
        for cause, num in metrics.failures(records).items()
    }


def _wrong_length(record: Record) -> bool:
    return record.asked_tokens is not None and record.output_tokens != record.asked_tokens


def stages(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """By stage and activity, over the requests that had it, in the order of stages."""
    found: dict[str, list[float]] = {}
    for record in records:
        for name, ms in metrics.stage_ms(record).items():
            found.setdefault(name, []).append(ms)
    order = ("encode", "prefill", "decode")
    names = sorted(found, key=lambda name: order.index(name.partition(".")[0]))
    return {name: {"num": len(found[name]), **asdict(Spread.of(found[name]))} for name in names}


def _cached(records: Sequence[Record]) -> int | None:
    """Items that no tower ran for; None where the server does not tell."""
    paths = [record.path for record in records if record.path is not None]
    if not paths:
        return None
    return sum(bool(item["cached"]) for path in paths for item in path.get("items", ()))


def details(run: Run) -> dict[str, Any]:
    """Per request: the lists of sglang's tool, and every record as it is."""
    records = run.records
    return {
        "input_lens": [record.prompt_tokens for record in records],
        "output_lens": [0 if record.error else record.output_tokens for record in records],
        "ttfts": [metrics.first_token_s(record) or 0.0 for record in records],
        "itls": [metrics.gaps_s(record) for record in records],
        "generated_texts": [record.text for record in records],
        "errors": [record.error for record in records],
        "started_at": run.started_at,
        "requests": [raw(record) for record in records],
    }


def raw(record: Record) -> dict[str, Any]:
    """A record as JSON, its text left out; moments to 10 µs."""
    found = {key: value for key, value in asdict(record).items() if key != "text"}
    found["arrivals"] = [(round(at, 5), num) for at, num in record.arrivals]
    return {**found, **{key: round(found[key], 5) for key in ("sent", "due", "ended")}}
