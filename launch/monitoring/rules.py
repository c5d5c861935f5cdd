"""Recording and alert rules.

All gateways report the same of a worker: `max by (worker)` takes one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

RUNBOOK = "docs/runbook/{alert}.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A name for an expression. `labels`: those that its series have."""

    name: str
    expr: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What somebody has to look at. `lasting`: for how long it has to be so."""

    name: str
    expr: str
    lasting: str
    severity: str
    summary: str


RECORDS = (
    Record(
        name="epd:requests:rate5m",
        expr="sum by (status) (rate(epd_requests_total[5m]))",
        labels=("status",),
    ),
    Record(
        name="epd:errors:ratio5m",
        expr='sum(rate(epd_requests_total{status=~"5.."}[5m])) / sum(rate(epd_requests_total[5m]))',
    ),
    Record(
        name="epd:refused:ratio5m",
        expr='sum(rate(epd_requests_total{status="429"}[5m])) / sum(rate(epd_requests_total[5m]))',
    ),
    Record(
        name="epd:first_token_seconds:p95_5m",
        expr="histogram_quantile(0.95, sum by (le) (rate(epd_first_token_seconds_bucket[5m])))",
    ),
    Record(
        name="epd:activity_seconds:mean5m",
        expr="sum by (stage, activity) (rate(epd_activity_seconds_sum[5m])) "
        "/ sum by (stage, activity) (rate(epd_activity_seconds_count[5m]))",
        labels=("stage", "activity"),
    ),
    # Work that waits, at the mean speed that this worker had so far.
    Record(
        name="epd:encode_queue_seconds",
        expr="max by (worker) (epd_worker_queued_cost) * max by (worker) (epd_worker_work_ms) "
        "/ (max by (worker) (epd_worker_work_cost) > 0) / 1000",
        labels=("worker",),
    ),
    Record(
        name="epd:encode_queue_seconds:sum",
        expr="sum(epd:encode_queue_seconds) or vector(0)",
    ),
    # Requests that wait, at the mean length of prompts of the last half hour.
    Record(
        name="epd:prefill_queued_tokens:sum",
        expr="sum(epd_waiting_requests) * sum(rate(epd_prompt_tokens_total[30m])) "
        "/ (sum(rate(epd_request_queue_seconds_count[30m])) > 0) "
        "or sum(epd_waiting_requests) * 1000 or vector(0)",
    ),
    Record(
        name="epd:decode_kv_usage:sum",
        expr='sum(max by (worker) (epd_kv_cache_usage_perc{stage=~".*decode"})) or vector(0)',
    ),
)

ALERTS = (
    Alert(
        name="EpdNoGateway",
        expr="absent(epd_live_requests)",
        lasting="2m",
        severity="page",
        summary="No gateway is scraped: nobody can be answered.",
    ),
    *(
        Alert(
            name=f"EpdNo{stage.capitalize()}",
            expr=f'absent(epd_worker_links_sent{{stage=~"{pattern}"}}) and on() epd_live_requests',
            lasting="2m",
            severity="page",
            summary=f"No worker serves {stage}: requests that need it are answered with 503.",
        )
        for stage, pattern in (
            ("encode", "encode"),
            ("prefill", "prefill.*"),
            ("decode", ".*decode"),
        )
    ),
    Alert(
        name="EpdErrors",
        expr="epd:errors:ratio5m > 0.02",
        lasting="5m",
        severity="page",
        summary="{{ $value | humanizePercentage }} of requests end with a 5xx.",
    ),
    Alert(
        name="EpdInternalErrors",
        expr='sum(increase(epd_failures_total{cause="internal_error"}[10m])) > 0',
        lasting="0m",
        severity="ticket",
        summary="Requests failed by a fault of the server.",
    ),
    Alert(
        name="EpdRefusing",
        expr="epd:refused:ratio5m > 0.05",
        lasting="10m",
        severity="ticket",
        summary="{{ $value | humanizePercentage }} of requests are refused with 429.",
    ),
    Alert(
        name="EpdFirstTokenSlow",
        expr="epd:first_token_seconds:p95_5m > 10",
        lasting="10m",
        severity="ticket",
        summary="One request of twenty waits longer than {{ $value | humanizeDuration }} for its "
        "first token.",
    ),
    Alert(
        name="EpdEncodeBacklog",
        expr="max(epd:encode_queue_seconds) > 10",
        lasting="5m",
        severity="ticket",
        summary="An encode worker has {{ $value | humanizeDuration }} of work in its queue.",
    ),
    Alert(
        name="EpdKvFull",
        expr='max(epd_kv_cache_usage_perc{stage=~".*decode"}) > 0.95 '
        "and on() sum(epd_waiting_requests) > 0",
        lasting="10m",
        severity="ticket",
        summary="KV is full and requests wait for it.",
    ),
    Alert(
        name="EpdStepStuck",
        expr="max by (worker, stage) (epd_worker_step_age_ms) > 60000",
        lasting="1m",
        severity="page",
        summary="A step of {{ $labels.worker }} runs for {{ $value }} ms.",
    ),
    Alert(
        name="EpdWorkLost",
        expr="sum by (what) (increase(epd_retries_total[10m])) > 5",
        lasting="0m",
        severity="ticket",
        summary="{{ $value }} times in ten minutes a {{ $labels.what }} was done again because its "
        "worker was lost.",
    ),
    Alert(
        name="EpdPreempting",
        expr="sum(max by (worker) (rate(epd_worker_preempted[10m]))) > 0.2",
        lasting="10m",
        severity="ticket",
        summary="Running requests are moved to host memory, for KV is short.",
    ),
    Alert(
        name="EpdMessagesDropped",
        expr='sum by (reason) (rate(epd_dropped_messages_total{reason!="stale"}[5m])) > 1',
        lasting="5m",
        severity="ticket",
        summary="Gateways drop messages: {{ $labels.reason }}.",
    ),
)


def groups() -> list[dict[str, object]]:
    """As a file of rules has them."""
    return [
        {"name": "epd.records", "interval": "15s", "rules": [_record(one) for one in RECORDS]},
        {"name": "epd.alerts", "rules": [_alert(one) for one in ALERTS]},
    ]


def _record(one: Record) -> dict[str, object]:
    return {"record": one.name, "expr": one.expr}


def _alert(one: Alert) -> dict[str, object]:
    return {
        "alert": one.name,
        "expr": one.expr,
        "for": one.lasting,
        "labels": {"severity": one.severity},
        "annotations": {"summary": one.summary, "runbook": RUNBOOK.format(alert=one.name)},
    }
