"""Metrics."""

from __future__ import annotations

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from epd.observe import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and sorted label values to value, as a scraper reads them."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_is_counted_is_rendered() -> None:
    """Under the project's prefix."""
    metrics = Metrics()
    metrics.request("200")
    metrics.request("422")
    metrics.request("422")
    metrics.prompt_tokens(100)
    metrics.prompt_tokens_cached(32)
    metrics.tokens(7)
    metrics.item("image")
    metrics.first_token(0.3)
    found = samples(metrics)
    assert found["epd_requests_total", ("200",)] == 1
    assert found["epd_requests_total", ("422",)] == 2
    assert found["epd_prompt_tokens_total", ()] == 100
    assert found["epd_prompt_tokens_cached_total", ()] == 32
    assert found["epd_tokens_total", ()] == 7
    assert found["epd_items_total", ("image",)] == 1
    assert found["epd_first_token_seconds_bucket", ("0.25",)] == 0
    assert found["epd_first_token_seconds_bucket", ("0.5",)] == 1


def test_what_the_gateway_holds_and_its_links_counted_is_rendered() -> None:
    """Read anew for each scrape; dropped messages by reason."""
    metrics = Metrics()
    links = {"sent": 3, "received": 4, "sent_bytes": 30, "dropped_stale": 2}
    metrics.set_gauges(
        requests=9, waiting=9, running=9, pending={"image": 9}, media_bytes=9, links={}
    )
    metrics.set_gauges(
        requests=3, waiting=1, running=1, pending={"video": 2}, media_bytes=50, links=links
    )
    found = samples(metrics)
    assert found["epd_live_requests", ()] == 3
    assert found["epd_num_requests_running", ()] == 1
    assert found["epd_num_requests_waiting", ()] == 2
    assert found["epd_items_pending", ("image",)] == 0
    assert found["epd_items_pending", ("video",)] == 2
    assert found["epd_waiting_requests", ()] == 1
    assert found["epd_media_bytes", ()] == 50
    assert found["epd_messages_total", ("sent",)] == 3
    assert found["epd_messages_total", ("received",)] == 4
    assert found["epd_message_bytes_total", ("sent",)] == 30
    assert found["epd_dropped_messages_total", ("stale",)] == 2


def test_workers_gauges_appear_change_and_go_with_the_worker() -> None:
    """The last report counts; a dead worker leaves no series behind."""
    metrics = Metrics()
    metrics.worker("encode-0", "encode", {"rows_bytes": 5, "queued_items": 1})
    metrics.worker("encode-1", "encode", {"rows_bytes": 7})
    metrics.worker("encode-0", "encode", {"rows_bytes": 6})
    found = samples(metrics)
    assert found["epd_worker_rows_bytes", ("encode", "encode-0")] == 6
    assert found["epd_worker_rows_bytes", ("encode", "encode-1")] == 7
    assert not any(name == "epd_worker_queued_items" for name, _ in found)
    metrics.worker_gone("encode-0")
    metrics.worker_gone("encode-0")
    assert [key for key in samples(metrics) if key[0] == "epd_worker_rows_bytes"] == [
        ("epd_worker_rows_bytes", ("encode", "encode-1"))
    ]


def test_a_peers_names_cannot_break_the_text() -> None:
    """What is no metric name is left out, and the number of names is bounded."""
    metrics = Metrics()
    bad = {"": 1, "a b": 1, "x\ny": 1, "Ä": 1, "9a": 1, "a" * 65: 1}
    metrics.worker('w"\n', "encode", bad | {f"g{n}": n for n in range(100)})
    names = {key[0] for key in samples(metrics) if key[0].startswith("epd_worker_")}
    assert names == {f"epd_worker_g{n}" for n in range(64)}


def test_registries_are_separate_and_the_global_one_is_untouched() -> None:
    """Two gateways in one process, and no side effect of importing."""
    one, other = Metrics(), Metrics()
    one.prompt_tokens(1)
    assert samples(other)["epd_prompt_tokens_total", ()] == 0
    assert not any(family.name.startswith("epd_") for family in REGISTRY.collect())
