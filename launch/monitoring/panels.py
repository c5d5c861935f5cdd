"""What the dashboard shows: rows of panels, each a few expressions over epd's metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One graph. `lines`: expression to legend. `unit`: as Grafana calls it."""

    title: str
    lines: dict[str, str]
    unit: str = "short"
    text: str = ""
    stacked: bool = False


def _rate(name: str, by: str) -> str:
    return f"sum by ({by}) (rate({name}[$__rate_interval]))"


def _worker(name: str, stage: str) -> str:
    return f'max by (worker) (epd_worker_{name}{{stage=~"{stage}"}})'


def _worker_rate(name: str, stage: str) -> str:
    return f'max by (worker) (rate(epd_worker_{name}{{stage=~"{stage}"}}[$__rate_interval]))'


def _quantile(quantile: str, name: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return (
        f"histogram_quantile({quantile}, sum by ({labels}) (rate({name}_bucket[$__rate_interval])))"
    )


def _latency(stage: str) -> dict[str, str]:
    seconds = f'epd_activity_seconds_bucket{{stage="{stage}"}}'
    inner = f"sum by (le, activity) (rate({seconds}[$__rate_interval]))"
    return {f"histogram_quantile(0.95, {inner})": "{{activity}}"}


_FIRST = "epd_first_token_seconds"
_TO_FIRST_TOKEN = (
    "sum by (stage, activity) (rate(epd_activity_seconds_sum"
    '{activity!~"merge|transfer",stage!="decode"}[$__rate_interval])) '
    "/ on() group_left() sum(rate(epd_first_token_seconds_count[$__rate_interval]))"
)

_CREDITS_USED = f"{_worker('row_bytes_held', 'prefill.*')} / {_worker('credit_bytes', 'prefill.*')}"
_BETWEEN_STAGES = (
    "histogram_quantile(0.95, sum by (le, stage, activity) (rate(epd_activity_seconds_bucket"
    '{activity=~"transfer|handoff"}[$__rate_interval])))'
)

ROWS: dict[str, tuple[Panel, ...]] = {
    "Requests": (
        Panel(
            title="Rate", lines={_rate("epd_requests_total", "status"): "{{status}}"}, unit="reqps"
        ),
        Panel(
            title="Live",
            lines={
                "sum(epd_num_requests_running)": "running",
                "sum(epd_num_requests_waiting)": "waiting",
            },
            stacked=True,
        ),
        Panel(
            title="First token",
            lines={_quantile(f"0.{q}", _FIRST): f"p{q}" for q in ("50", "95", "99")},
            unit="s",
        ),
        Panel(
            title="First token by stage",
            lines={_TO_FIRST_TOKEN: "{{stage}} {{activity}}"},
            unit="s",
            text="Mean seconds per request, summed over its items: what overlaps counts twice.",
            stacked=True,
        ),
        Panel(
            title="Tokens to clients",
            lines={"sum(rate(epd_tokens_total[$__rate_interval]))": "tokens"},
        ),
        Panel(
            title="Failures",
            lines={
                _rate("epd_failures_total", "cause"): "{{cause}}",
                _rate("epd_retries_total", "what"): "{{what}} done again",
            },
            unit="ops",
        ),
    ),
    "Encode": (
        Panel(
            title="Items", lines={_rate("epd_items_total", "modality"): "{{modality}}"}, unit="ops"
        ),
        Panel(
            title="Queue",
            lines={"epd:encode_queue_seconds": "{{worker}}"},
            unit="s",
            text="Work that waits, at each worker's mean speed.",
        ),
        Panel(title="Latency, p95", lines=_latency("encode"), unit="s"),
        Panel(
            title="Where rows came from",
            lines={_rate("epd_item_rows_total", "origin"): "{{origin}}"},
            unit="ops",
            stacked=True,
        ),
        Panel(
            title="Items per tower forward, median",
            lines={_quantile("0.5", "epd_batch_items", "modality"): "{{modality}}"},
        ),
        Panel(
            title="Memory for rows",
            lines={
                _worker("rows_bytes", "encode"): "{{worker}} to be pulled",
                _worker("cache_bytes", "encode"): "{{worker}} cache",
            },
            unit="bytes",
        ),
    ),
    "Prefill": (
        Panel(
            title="Prompt tokens",
            lines={
                "sum(rate(epd_prompt_tokens_total[$__rate_interval]))": "all",
                "sum(rate(epd_prompt_tokens_cached_total[$__rate_interval]))": "cached",
            },
        ),
        Panel(
            title="Queue",
            lines={
                "sum(epd_waiting_requests)": "requests",
                _quantile("0.95", "epd_request_queue_seconds"): "p95 seconds",
            },
        ),
        Panel(title="Latency, p95", lines=_latency("prefill"), unit="s"),
        Panel(
            title="KV in use",
            lines={'max by (worker) (epd_kv_cache_usage_perc{stage=~"prefill.*"})': "{{worker}}"},
            unit="percentunit",
        ),
        Panel(
            title="Credits for rows in use",
            lines={_CREDITS_USED: "{{worker}}"},
            unit="percentunit",
        ),
        Panel(
            title="Step age", lines={_worker("step_age_ms", "prefill.*"): "{{worker}}"}, unit="ms"
        ),
    ),
    "Decode": (
        Panel(
            title="Tokens computed",
            lines={_worker_rate("engine_tokens", ".*decode"): "{{worker}}"},
        ),
        Panel(
            title="Sequences per step",
            lines={
                f"{_worker_rate('engine_sequences', '.*decode')} / "
                f"{_worker_rate('engine_steps', '.*decode')}": "{{worker}}"
            },
        ),
        Panel(
            title="Time in steps",
            lines={
                f"sum({_worker_rate(f'engine_{phase}_ms', '.*decode')}) / 1000": phase
                for phase in ("schedule", "plan", "forward", "sample", "other")
            },
            unit="percentunit",
            stacked=True,
        ),
        Panel(
            title="KV in use",
            lines={'max by (worker) (epd_kv_cache_usage_perc{stage=~".*decode"})': "{{worker}}"},
            unit="percentunit",
        ),
        Panel(title="Latency, p95", lines=_latency("decode"), unit="s"),
        Panel(
            title="Moved to host memory",
            lines={_worker_rate("preempted", ".*decode"): "{{worker}}"},
            unit="ops",
        ),
    ),
    "Transfer": (
        Panel(
            title="Moved", lines={_rate("epd_moved_bytes_total", "what"): "{{what}}"}, unit="Bps"
        ),
        Panel(
            title="Sent by workers",
            lines={
                _worker_rate("row_bytes_sent", "encode"): "{{worker}} rows",
                _worker_rate("kv_bytes_sent", "prefill.*"): "{{worker}} KV",
            },
            unit="Bps",
        ),
        Panel(
            title="Seconds, p95",
            lines={_BETWEEN_STAGES: "{{stage}} {{activity}}"},
            unit="s",
        ),
        Panel(title="Waiting for room", lines={_worker("bulk_sends", ".*"): "{{worker}}"}),
        Panel(
            title="Messages of gateways",
            lines={_rate("epd_messages_total", "way"): "{{way}}"},
            unit="ops",
        ),
        Panel(
            title="Messages dropped",
            lines={_rate("epd_dropped_messages_total", "reason"): "{{reason}}"},
            unit="ops",
        ),
    ),
}
