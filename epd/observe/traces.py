"""Traces: W3C's traceparent in and out, and spans of all stages where OpenTelemetry is installed.

Workers tell the gateway what they did, and the gateway alone makes spans of it, so no other process
needs the package, and no clock of another machine is believed.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Any, Protocol

from epd.errors import ConfigError
from epd.observe.path import ItemPath, Path
from epd.types import Activity, Stage

_EXPORT_S = 2
"""A collector that does not answer holds up the end of the process for so long at most."""

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Traces(Protocol):
    """Where traces go."""

    def begin(self, traceparent: str) -> str:
        """A request came, with this header or "". What goes out in its place; "" for none."""

    def end(self, path: Path, status: str) -> None:
        """A request that began here ended. `path.traceparent` is what begin() gave."""

    def close(self) -> None:
        """Send what has not been sent."""


def is_traceparent(header: str) -> bool:
    """Version 00, and neither id is zero."""
    found = _TRACEPARENT.fullmatch(header)
    return found is not None and set(found[1]) != {"0"} and set(found[2]) != {"0"}


class PassedOn:
    """Without OpenTelemetry: the client's trace goes on, and nobody records this part of it."""

    def begin(self, traceparent: str) -> str:
        """The same trace with a span id of our own."""
        if not is_traceparent(traceparent):
            return ""
        version, trace, _, flags = traceparent.split("-")
        return f"{version}-{trace}-{secrets.token_hex(8)}-{flags}"

    def end(self, path: Path, status: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is kept."""


def open_traces(endpoint: str | None, name: str) -> Traces:
    """To an OTLP/HTTP collector at this URL; None: traces are only passed on."""
    if endpoint is None:
        return PassedOn()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            "gateway.otlp_endpoint needs OpenTelemetry: pip install 'epd[otel]'"
        ) from error
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_S)
    return OpenTelemetry(BatchSpanProcessor(exporter), name)


class OpenTelemetry:
    """One span per request, and one below it for each activity that took time."""

    def __init__(self, processor: Any, name: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        resource = Resource.create({"service.name": "epd", "service.instance.id": name})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("epd")
        self._live: dict[str, Any] = {}

    def begin(self, traceparent: str) -> str:
        """A span of ours, in the client's trace or in a new one."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {"traceparent": traceparent} if is_traceparent(traceparent) else {}
        parent = TraceContextTextMapPropagator().extract(carrier)
        span = self._tracer.start_span("epd.request", context=parent, kind=SpanKind.SERVER)
        found = span.get_span_context()
        ours = f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags):02x}"
        self._live[ours] = span
        return ours

    def end(self, path: Path, status: str) -> None:
        """The request's span with all that its workers told."""
        root = self._live.pop(path.traceparent, None)
        if root is None:
            return
        now, at = time.time_ns(), path.ended or path.began
        root.set_attributes(
            {
                "http.response.status_code": int(status),
                "epd.request_id": path.request_id,
                "epd.attempts": path.attempts,
                "epd.cached_tokens": path.num_cached_tokens,
            }
        )
        for name, began, seconds, attributes in _activities(path):
            start = now - _nanoseconds(at - began)
            self._child(root, name, start, start + _nanoseconds(seconds), attributes)
        root.end(now)

    def _child(
        self, root: Any, name: str, start: int, end: int, attributes: dict[str, str | int]
    ) -> None:
        from opentelemetry.trace import set_span_in_context

        span = self._tracer.start_span(
            name, context=set_span_in_context(root), start_time=start, attributes=attributes
        )
        span.end(end)

    def close(self) -> None:
        """Waits for the collector, within the exporter's own timeout."""
        self._provider.shutdown()


def _activities(path: Path) -> list[tuple[str, float, float, dict[str, str | int]]]:
    """(name, began, seconds, attributes) of each."""
    found: list[tuple[str, float, float, dict[str, str | int]]] = []
    for index, item in enumerate(path.items):
        for activity, span in item.times.items():
            stage = Stage.PREFILL if activity is Activity.TRANSFER else Stage.ENCODE
            attributes = _of_item(index, item)
            found.append((f"epd.{stage}.{activity}", span.began, span.seconds, attributes))
    for stage, part in path.parts.items():
        for activity, span in part.times.items():
            name = f"epd.{stage}.{activity}"
            found.append((name, span.began, span.seconds, {"epd.worker": part.worker}))
    return found


def _of_item(index: int, item: ItemPath) -> dict[str, str | int]:
    return {
        "epd.item": index,
        "epd.modality": item.modality.value,
        "epd.encoder": item.encoder,
        "epd.rows": item.num_rows,
        "epd.rows_from": "" if item.origin is None else item.origin.value,
    }


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
