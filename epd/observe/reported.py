"""Numbers that others count and report whole: workers their gauges, links their totals."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

GAUGES = {
    "bulk_sends": "transfers that wait for room on their link or in shared memory",
    "cache_bytes": "rows kept for items that come again",
    "cache_hits": "items whose rows were there, since the start",
    "cache_most_bytes": "the most that cache_bytes may become",
    "cache_misses": "items whose rows were not, since the start",
    "credit_bytes": "credits in all: rows that may be asked for and not prefilled",
    "early_items": "items whose rows were there before their layout was on record",
    "encoded": "items that a tower encoded, since the start",
    "engine_forward_ms": "time in forwards, since the start",
    "engine_other_ms": "time in steps that no other phase has, since the start",
    "engine_plan_ms": "time planning attention, since the start",
    "engine_sample_ms": "time sampling, since the start",
    "engine_schedule_ms": "time choosing what a step computes, since the start",
    "engine_sequences": "sequences in all forwards: over engine_steps, the mean batch",
    "engine_steps": "forwards, since the start",
    "engine_tokens": "tokens computed in forwards, since the start",
    "followers": "items that share the way of an equal one",
    "held_items": "items whose towers wait to be asked for",
    "host_blocks_used": "blocks of host memory with KV of preempted requests",
    "intake_jobs": "items queued for, or in, fetch, decode and preprocess",
    "intake_ms": "time of all intake threads, since the start",
    "items": "items that somebody may still pull",
    "kept_shared_bytes": "finished embeddings that stay in shared memory, where others read them",
    "kv_blocks": "blocks of the whole KV cache",
    "kv_blocks_cached": "blocks that nobody holds, kept for prompts that begin alike",
    "kv_blocks_used": "blocks that requests hold",
    "kv_bytes_sent": "KV sent to decode workers, since the start",
    "kv_tokens": "tokens that the whole KV cache holds",
    "kv_tokens_free": "tokens that fit into blocks nobody holds, cached ones too",
    "pinned_items": "items that somebody waits for",
    "preempted": "requests moved to host memory, since the start",
    "prepared_bytes": "preprocessed items before their towers",
    "queued_cost": "cost of items whose rows are not there yet, in pixels of pictures",
    "queued_items": "items whose rows are not there yet",
    "rank_bytes_sent": "KV that ranks after the first sent by sockets, since the start",
    "rank_bytes_taken": "KV that ranks after the first took by themselves, since the start",
    "requests": "attempts of requests that are held",
    "row_bytes_held": "credits in use: rows asked for and not prefilled",
    "row_bytes_sent": "rows sent to prefill workers, since the start",
    "rows_bytes": "rows kept for pulling",
    "rows_merged_bytes": "rows that landed and are not prefilled",
    "shm_bytes": "shared memory in use",
    "step_age_ms": "for how long the running step runs",
    "tower_ms": "time in tower forwards, since the start",
    "work_cost": "cost of items that became rows, in pixels of pictures, since the start",
    "work_ms": "time of the work behind work_cost, since the start",
}
"""What workers report, by name. The totals of their links come as links_NAME."""

KV_USAGE = "share of the KV cache that requests hold, 1 for all of it; cached blocks are free"

_OTHER = "reported by the worker"
_LABELS = ("worker", "stage")
LABELS = {
    "epd_dropped_messages": ("reason",),
    "epd_kv_cache_usage_perc": _LABELS,
    "epd_message_bytes": ("way",),
    "epd_messages": ("way",),
}
"""Of the families that have names of their own."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_GAUGES = 64


class WorkerGauges(Collector):
    """The gauges that workers report, as epd_worker_<name>{worker, stage}.

    With them goes epd_kv_cache_usage_perc, which is worked out from two of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[str, tuple[str, dict[str, int]]] = {}

    def report(self, worker: str, stage: str, gauges: Mapping[str, int]) -> None:
        """Replace what this worker said before. Names that are none, and more than 64, are left."""
        good = [name for name in gauges if _NAME.fullmatch(name)][:_MAX_GAUGES]
        with self._lock:
            self._reports[worker] = (stage, {name: gauges[name] for name in good})

    def forget(self, worker: str) -> None:
        """The worker is gone, and so are its series."""
        with self._lock:
            self._reports.pop(worker, None)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known in advance."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One family per gauge name."""
        with self._lock:
            reports = sorted(self._reports.items())
        families: dict[str, GaugeMetricFamily] = {}
        for worker, (stage, gauges) in reports:
            for name, value in gauges.items():
                if name not in families:
                    families[name] = GaugeMetricFamily(
                        f"epd_worker_{name}", GAUGES.get(name, _OTHER), labels=_LABELS
                    )
                families[name].add_metric((worker, stage), value)
        usage = GaugeMetricFamily("epd_kv_cache_usage_perc", KV_USAGE, labels=_LABELS)
        for worker, (stage, gauges) in reports:
            if capacity := gauges.get("kv_tokens"):
                used = 1 - gauges.get("kv_tokens_free", 0) / capacity
                usage.add_metric((worker, stage), used)
        return [usage, *(families[name] for name in sorted(families))]


class LinkCounters(Collector):
    """Totals of the gateway's links: sent, received, the same with _bytes, and dropped_REASON."""

    def __init__(self) -> None:
        self._totals: Mapping[str, int] = {}

    def report(self, totals: Mapping[str, int]) -> None:
        """Replace the totals."""
        self._totals = dict(totals)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known in advance."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Messages and bytes by direction, dropped messages by reason."""
        messages = CounterMetricFamily("epd_messages", "messages on the wire", labels=("way",))
        sizes = CounterMetricFamily("epd_message_bytes", "bytes on the wire", labels=("way",))
        dropped = CounterMetricFamily(
            "epd_dropped_messages", "messages that were not acted on", labels=("reason",)
        )
        for name, total in sorted(self._totals.items()):
            if name.startswith("dropped_"):
                dropped.add_metric((name.removeprefix("dropped_"),), total)
            elif name.endswith("_bytes"):
                sizes.add_metric((name.removesuffix("_bytes"),), total)
            else:
                messages.add_metric((name,), total)
        return (messages, sizes, dropped)
