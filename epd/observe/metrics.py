"""Counters, histograms and gauges of a gateway, in a registry of their own.

Nothing here serves HTTP or touches prometheus_client's global registry: `render` gives the text,
whoever owns a route sends it. All of it may be used from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric

from epd.observe.path import ItemPath, Path
from epd.observe.reported import LABELS, LinkCounters, WorkerGauges
from epd.types import Modality

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_CAUSES = frozenset(
    {
        "cancelled",
        "context_length_exceeded",
        "internal_error",
        "invalid_media",
        "invalid_request",
        "overloaded",
        "too_large",
        "unavailable",
    }
)
"""Codes that a failure is counted under; any other one is "other"."""

_MODALITIES = tuple(modality.value for modality in Modality)
_ACTIVITY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """What one gateway counts. Labels have few values: never a request, URL or client's word.

    `labels` has the names of each family's labels.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.labels = dict(LABELS)
        self._new_tokens = 0
        self._count_requests()
        self._count_work()
        self._show_what_is_held()
        self._workers = WorkerGauges()
        self._links = LinkCounters()
        self._registry.register(self._workers)
        self._registry.register(self._links)

    def _count_requests(self) -> None:
        self._requests = self._counter("requests", "requests ended, by HTTP status", "status")
        self._items = self._counter("items", "items that clients sent", "modality")
        self._prompt_tokens = self._counter("prompt_tokens", "tokens of prompts, expanded")
        self._prompt_tokens_cached = self._counter(
            "prompt_tokens_cached", "tokens of prompts whose KV was there already"
        )
        self._tokens = self._counter("tokens", "tokens generated and sent on to clients")
        self._first_token = self._histogram(
            "first_token_seconds", "from the request's arrival to its first token", _SECONDS
        )
        self._failures = self._counter("failures", "requests without an answer, by cause", "cause")

    def _count_work(self) -> None:
        """What workers did for requests."""
        self._queue = self._histogram(
            "request_queue_seconds",
            "from all layouts being known to the prompt's admission",
            _SECONDS,
        )
        self._activities = self._histogram(
            "activity_seconds",
            "what workers did for requests that ended; modality is text for those without items",
            _ACTIVITY_SECONDS,
            *("stage", "activity", "modality"),
        )
        self._batches = self._histogram(
            "batch_items",
            "items in the tower forward that an item was part of",
            _BATCHES,
            "modality",
        )
        self._origins = self._counter(
            "item_rows",
            "items by where their rows came from: tower, cache, shared (an equal item's way), kv",
            "modality",
            "origin",
        )
        self._moved = self._counter(
            "moved_bytes", "bytes that requests moved: files, rows, kv", "what"
        )
        self._retries = self._counter(
            "retries", "items and requests done again because a worker lost them", "what"
        )

    def _show_what_is_held(self) -> None:
        self._live = self._gauge("live_requests", "requests accepted and not ended")
        self._waiting = self._gauge(
            "waiting_requests", "requests, or choices of them, whose layouts wait for admission"
        )
        self._num_waiting = self._gauge(
            "num_requests_waiting", "live requests that no language worker has admitted yet"
        )
        self._num_running = self._gauge(
            "num_requests_running", "live requests that a language worker has admitted"
        )
        self._pending = self._gauge(
            "items_pending", "items of live requests whose rows are not encoded yet", "modality"
        )
        self._media_bytes = self._gauge("media_bytes", "inline media held for live requests")

    def request(self, status: str) -> None:
        """A request ended with this HTTP status."""
        self._requests.labels(status=status).inc()

    def item(self, modality: str) -> None:
        """An item was dispatched for the first time."""
        self._items.labels(modality=modality).inc()

    def prompt_tokens(self, num: int) -> None:
        """A prompt of this length was admitted."""
        self._prompt_tokens.inc(num)

    def prompt_tokens_cached(self, num: int) -> None:
        """A prompt needed no computing for so many tokens."""
        self._prompt_tokens_cached.inc(num)

    def tokens(self, num: int) -> None:
        """So many tokens went to a client."""
        self._new_tokens += num

    def first_token(self, seconds: float) -> None:
        """A request got its first token after this time."""
        self._first_token.observe(seconds)

    def failure(self, cause: str) -> None:
        """A request ended with an error of this code."""
        self._failures.labels(cause=cause if cause in _CAUSES else "other").inc()

    def path(self, path: Path) -> None:
        """A request ended, well or not, and this is what was done for it."""
        for stage, kind, activity, span in path.activities():
            labels = {"stage": stage.value, "activity": activity.value, "modality": kind}
            self._activities.labels(**labels).observe(span.seconds)
        if path.admitted is not None and path.laid_out is not None:
            self._queue.observe(max(0.0, path.admitted - path.laid_out))
        for item in path.items:
            self._item_ended(item)
        self._retries.labels(what="request").inc(path.attempts - 1)
        for part in path.parts.values():
            self._moved.labels(what="kv").inc(part.num_bytes)

    def _item_ended(self, item: ItemPath) -> None:
        kind = item.modality.value
        if item.origin is not None:
            self._origins.labels(modality=kind, origin=item.origin.value).inc()
        if item.batch_items:
            self._batches.labels(modality=kind).observe(item.batch_items)
        self._moved.labels(what="files").inc(item.num_bytes)
        self._moved.labels(what="rows").inc(item.row_bytes)
        self._retries.labels(what="item").inc(max(0, item.attempts - 1))

    def worker(self, name: str, stage: str, gauges: Mapping[str, int]) -> None:
        """What a worker says it holds, in place of what it said before."""
        self._workers.report(name, stage, gauges)

    def worker_gone(self, name: str) -> None:
        """Its series end."""
        self._workers.forget(name)

    def set_gauges(
        self,
        *,
        requests: int,
        waiting: int,
        running: int,
        pending: Mapping[str, int],
        media_bytes: int,
        links: Mapping[str, int],
    ) -> None:
        """What the gateway holds now, and the totals of its links."""
        self._live.set(requests)
        self._waiting.set(waiting)
        self._num_running.set(running)
        self._num_waiting.set(requests - running)
        for modality in _MODALITIES:
            self._pending.labels(modality=modality).set(pending.get(modality, 0))
        self._media_bytes.set(media_bytes)
        self._links.report(links)

    def families(self) -> list[Metric]:
        """What is counted here, with its help."""
        return list(self._registry.collect())

    def render(self) -> bytes:
        """Everything, in Prometheus' text format (CONTENT_TYPE)."""
        self._tokens.inc(self._new_tokens)  # which takes a lock: not for every token
        self._new_tokens = 0
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self._named(name, labels), text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._named(name, labels), text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        full = self._named(name, labels)
        return Histogram(full, text, labels, buckets=buckets, registry=self._registry)

    def _named(self, name: str, labels: tuple[str, ...]) -> str:
        self.labels[f"epd_{name}"] = labels
        return f"epd_{name}"
