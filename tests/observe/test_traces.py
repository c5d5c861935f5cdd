"""Traces: the header in and out, and spans where OpenTelemetry is installed."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from epd.errors import ConfigError
from epd.observe import PassedOn, open_traces
from epd.observe.path import Path
from epd.observe.traces import OpenTelemetry, is_traceparent
from epd.types import Activity, Modality, Origin, Span, Stage

TRACE, PARENT = "a" * 32, "b" * 16
HEADER = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"01-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01\r\nx: y",
        f"{HEADER}-x",
    ],
)
def test_what_is_no_traceparent_is_taken_for_none(header: str) -> None:
    assert not is_traceparent(header)
    assert PassedOn().begin(header) == ""


def test_without_a_collector_the_clients_trace_goes_on_under_another_span() -> None:
    version, trace, span, flags = PassedOn().begin(HEADER).split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != PARENT and is_traceparent(f"00-{trace}-{span}-01")
    assert isinstance(open_traces(None, "gateway-0"), PassedOn)


def test_a_collector_without_the_package_is_refused_and_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"epd\[otel\]"):
        open_traces("http://127.0.0.1:4318/v1/traces", "gateway-0")


def path_of(traceparent: str) -> Path:
    """One picture, from second 100 to second 103."""
    path = Path.of("r", 100.0, [Modality.IMAGE])
    path.traceparent = traceparent
    path.sent_item(0, "E")
    encode = Span(activity=Activity.ENCODE, ago_ms=500, ms=400)
    path.encoded("E", 0, [encode], 101.0, origin=Origin.TOWER, num_bytes=5, batch_items=1)
    path.sent_request("r", 1, "P", "D")
    prefill = Span(activity=Activity.PREFILL, ago_ms=100, ms=100)
    path.worked("P", Stage.PREFILL, [prefill], 102.0, num_bytes=0)
    path.close(103.0)
    return path


@pytest.fixture
def collected() -> tuple[OpenTelemetry, Any]:
    export = pytest.importorskip("opentelemetry.sdk.trace.export", reason="the extra otel")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    return OpenTelemetry(export.SimpleSpanProcessor(exporter), "gateway-0"), exporter


def test_every_stage_is_a_span_in_the_clients_trace(collected: tuple[OpenTelemetry, Any]) -> None:
    traces, exporter = collected
    ours = traces.begin(HEADER)
    traces.end(path_of(ours), "200")
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"epd.request", "epd.encode.encode", "epd.prefill.prefill"}
    root = spans["epd.request"]
    assert f"{root.context.trace_id:032x}" == TRACE and f"{root.parent.span_id:016x}" == PARENT
    assert ours == f"00-{TRACE}-{root.context.span_id:016x}-01"
    encode = spans["epd.encode.encode"]
    assert encode.parent.span_id == root.context.span_id
    assert encode.attributes["epd.encoder"] == "E"
    assert round((encode.end_time - encode.start_time) / 1e6) == 400
    assert round((root.end_time - encode.start_time) / 1e6) == 2500
    traces.close()


def test_a_request_without_a_trace_begins_one(collected: tuple[OpenTelemetry, Any]) -> None:
    traces, exporter = collected
    ours = traces.begin("")
    assert is_traceparent(ours)
    traces.end(path_of(ours), "503")
    traces.end(path_of(ours), "503")
    roots = [s for s in exporter.get_finished_spans() if s.name == "epd.request"]
    assert len(roots) == 1 and roots[0].attributes["http.response.status_code"] == 503
    traces.close()
