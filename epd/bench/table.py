"""The table that people know from the tools of sglang and vLLM, and what `epd` adds. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 50
NAME = 40
NOT_KNOWN = "n/a"

HEAD = (
    ("Backend:", "backend"),
    ("Dataset:", "dataset_name"),
    ("Model:", "model_id"),
    ("Traffic request rate:", "request_rate"),
    ("Max request concurrency:", "max_concurrency"),
    ("Successful requests:", "completed"),
    ("Failed requests:", "failed"),
    ("Answers of another length than asked:", "wrong_lengths"),
    ("Benchmark duration (s):", "duration"),
    ("Total input tokens:", "total_input_tokens"),
    ("Total input text tokens:", "total_input_text_tokens"),
    ("Total input vision tokens:", "total_input_vision_tokens"),
    ("Total input audio tokens:", "total_input_audio_tokens"),
    ("Total cached tokens:", "total_cached_tokens"),
    ("Total generated tokens:", "total_output_tokens"),
    ("Request throughput (req/s):", "request_throughput"),
    ("Request goodput (req/s):", "request_goodput"),
    ("Input token throughput (tok/s):", "input_throughput"),
    ("Output token throughput (tok/s):", "output_throughput"),
    ("Peak output token throughput (tok/s):", "max_output_tokens_per_s"),
    ("Peak concurrent requests:", "max_concurrent_requests"),
    ("Total token throughput (tok/s):", "total_throughput"),
    ("Concurrency:", "concurrency"),
)
TIMES = (
    ("End-to-End Latency", "E2E Latency", "e2e_latency", False),
    ("Time to First Token", "TTFT", "ttft", False),
    ("Time per Output Token (excl. 1st token)", "TPOT", "tpot", False),
    ("Inter-Token Latency", "ITL", "itl", True),
)
SPREAD = (
    ("Mean", "mean"),
    ("Median", "median"),
    ("P90", "p90"),
    ("P95", "p95"),
    ("P99", "p99"),
    ("Max", "max"),
)
ABSENT = {"request_rate": "inf", "max_concurrency": "not set"}
STAGES = ("mean", "median", "p90", "p99")
STAGE_COLUMN = 8


def table(result: Mapping[str, Any]) -> str:
    """Of one result, as `epd.bench.result` makes it."""
    lines = [f"{' Serving Benchmark Result ':=^{WIDTH}}"]
    lines += [_line(name, result[key], key) for name, key in HEAD if key in result]
    for title, name, key, has_max in TIMES:
        lines.append(f"{title:-^{WIDTH}}")
        for word, part in SPREAD if has_max else SPREAD[:-1]:
            lines.append(_line(f"{word} {name} (ms):", result[f"{part}_{key}_ms"]))
    lines += [*_stages(result["stages_ms"]), *_items(result), *_attainment(result)]
    lines += _failures(result["failures"])
    lines += [f"{'Load Generator':-^{WIDTH}}"]
    lines += [_line("P99 lateness of a request (ms):", result["generator"]["p99_lateness_ms"])]
    lines += [_line("Sent (MB/s):", result["generator"]["sent_mb_per_s"])]
    return "\n".join([*lines, "=" * WIDTH])


def _line(name: str, value: Any, key: str = "") -> str:
    return f"{name:<{NAME}} {_shown(value, ABSENT.get(key, NOT_KNOWN)):<10}".rstrip()


def _shown(value: Any, absent: str = NOT_KNOWN) -> str:
    if value is None:
        return absent
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _stages(stages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Milliseconds of a request by stage and activity; nothing where the server tells none."""
    if not stages:
        return
    yield f"{'Stages (ms)':-^{WIDTH}}"
    yield f"{'':<18}" + "".join(f"{name:>{STAGE_COLUMN}}" for name in STAGES)
    for name, spread in stages.items():
        cells = "".join(f"{_shown(spread[part]):>{STAGE_COLUMN}}" for part in STAGES)
        yield f"{name:<18}{cells}"


def _items(result: Mapping[str, Any]) -> Iterator[str]:
    items = result["items"]
    if not items["asked"]:
        return
    yield f"{'Pictures, Videos, Sounds':-^{WIDTH}}"
    yield _line("Sent:", items["asked"])
    yield _line("Sent before:", items["repeated"])
    yield _line("Served without a tower:", items["cached"])


def _attainment(result: Mapping[str, Any]) -> Iterator[str]:
    if "slo_attainment" not in result:
        return
    yield f"{'Goals':-^{WIDTH}}"
    for goal, ms in result["goodput_slos_ms"].items():
        share = result["slo_attainment_by_metric"][goal]
        yield _line(f"{goal.upper()} within {ms:g} ms (%):", share * 100)
    yield _line("All goals (%):", result["slo_attainment"] * 100)


def _failures(failures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not failures:
        return
    yield f"{'Failures':-^{WIDTH}}"
    for cause, found in failures.items():
        yield _line(f"{cause}:", found["count"])
        yield f"  {found['first']}"
