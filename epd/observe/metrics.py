"""Counters, histograms and gauges of a gateway, in a registry of their own.

Nothing here serves HTTP or touches prometheus_client's global registry: `render` gives the text,
whoever owns a route sends it. All of it may be used from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from epd.observe.reported import LinkCounters, WorkerGauges

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """What one gateway counts. Labels have few values: never a request, URL or client's word."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "requests ended, by HTTP status", "status")
        self._items = self._counter("items", "items that clients sent", "modality")
        self._prompt_tokens = self._counter("prompt_tokens", "tokens of prompts, expanded")
        self._prompt_tokens_cached = self._counter(
            "prompt_tokens_cached", "tokens of prompts whose KV was there already"
        )
        self._tokens = self._counter("tokens", "tokens generated and sent on to clients")
        self._first_token = Histogram(
            "epd_first_token_seconds",
            "from the request's arrival to its first token",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._live = self._gauge("live_requests", "requests accepted and not ended")
        self._waiting = self._gauge("waiting_requests", "of these, not admitted yet")
        self._media_bytes = self._gauge("media_bytes", "inline media held for live requests")
        self._workers = WorkerGauges()
        self._links = LinkCounters()
        self._registry.register(self._workers)
        self._registry.register(self._links)

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
        self._tokens.inc(num)

    def first_token(self, seconds: float) -> None:
        """A request got its first token after this time."""
        self._first_token.observe(seconds)

    def worker(self, name: str, stage: str, gauges: Mapping[str, int]) -> None:
        """What a worker says it holds, in place of what it said before."""
        self._workers.report(name, stage, gauges)

    def worker_gone(self, name: str) -> None:
        """Its series end."""
        self._workers.forget(name)

    def set_gauges(
        self, *, requests: int, waiting: int, media_bytes: int, links: Mapping[str, int]
    ) -> None:
        """What the gateway holds now, and the totals of its links."""
        self._live.set(requests)
        self._waiting.set(waiting)
        self._media_bytes.set(media_bytes)
        self._links.report(links)

    def render(self) -> bytes:
        """Everything, in Prometheus' text format (CONTENT_TYPE)."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"epd_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"epd_{name}", text, registry=self._registry)
