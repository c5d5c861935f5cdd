"""The path of a request, from events as a gateway sees them."""

from __future__ import annotations

from epd.observe.path import Path
from epd.observe.shown import shown
from epd.types import Activity, Modality, Origin, Span, Stage

IMAGE, VIDEO = Modality.IMAGE, Modality.VIDEO


def span(activity: Activity, ms: float, ago_ms: float = 0.0) -> Span:
    return Span(activity=activity, ago_ms=ago_ms, ms=ms)


def encoded(path: Path, index: int, now: float, origin: Origin | None, *spans: Span) -> None:
    path.encoded("E", index, spans, now, origin=origin, num_bytes=7, batch_items=1)


def asked(*modalities: Modality) -> Path:
    """It came at second 100, and all its items went to E."""
    path = Path.of("r", 100.0, modalities)
    for index in range(len(modalities)):
        path.sent_item(index, "E")
    return path


def test_spans_that_were_told_as_ages_lie_on_the_gateways_clock() -> None:
    path = asked(IMAGE)
    encoded(path, 0, 102.0, Origin.TOWER, span(Activity.ENCODE, 250, ago_ms=500))
    ((stage, kind, activity, timed),) = path.activities()
    assert (stage, kind, activity) == (Stage.ENCODE, "image", Activity.ENCODE)
    assert (timed.began, timed.seconds) == (101.5, 0.25)


def test_what_is_said_later_replaces_what_was_said_before() -> None:
    """A first message comes before the layout, another before the rows."""
    path = asked(IMAGE)
    encoded(path, 0, 101.0, None, span(Activity.QUEUE, 5), span(Activity.DECODE, 10))
    assert path.pending == ["image"]
    encoded(path, 0, 102.0, Origin.TOWER, span(Activity.QUEUE, 9), span(Activity.ENCODE, 3))
    assert path.pending == []
    (item,) = shown(path)["items"]
    assert item["ms"] == {"queue": 9.0, "decode": 10.0, "encode": 3.0}


def test_rows_that_nobody_pulled_were_not_needed_unless_a_tower_made_them() -> None:
    path = asked(IMAGE, IMAGE, IMAGE, VIDEO)
    encoded(path, 0, 101.0, Origin.TOWER)
    encoded(path, 1, 101.0, Origin.CACHE)
    path.sent_request("r", 1, "P", "D")
    transfer = span(Activity.TRANSFER, 1)
    path.pulled("P", 1, transfer, 102.0, num_rows=3, num_bytes=12)
    path.worked("P", Stage.PREFILL, (), 102.0, num_bytes=0)
    assert [item.origin for item in path.items] == [
        Origin.TOWER,
        Origin.CACHE,
        Origin.KV,
        Origin.KV,
    ]
    assert path.num_hits == 3


def test_a_retry_is_counted_and_a_refusal_is_none() -> None:
    path = asked(IMAGE)
    path.sent_request("r", 1, "P", "D")
    path.refused("r", 1)
    path.sent_request("r", 2, "P", "D")
    assert (path.attempts, path.retries) == (1, 0)
    path.sent_request("r", 3, "P2", "D2")
    path.sent_item(0, "E2")
    assert (path.attempts, path.retries) == (2, 2)
    assert path.encoders == ["E2"]


def test_choices_made_one_by_one_count_along_the_longest_way() -> None:
    """Each is a request of its own, which is no retry; one of them loses a worker."""
    path = asked()
    for part in ("r/0", "r/1"):
        path.sent_request(part, 1, "P", "D")
    assert path.retries == 0
    path.sent_request("r/1", 2, "P", "D")
    assert path.retries == 1


def test_workers_of_an_attempt_that_is_over_are_not_heard() -> None:
    path = asked(IMAGE)
    path.sent_item(0, "E2")
    encoded(path, 0, 101.0, Origin.TOWER, span(Activity.ENCODE, 1))
    path.sent_request("r", 1, "P", "D")
    path.sent_request("r", 2, "P2", "D2")
    for sender, stage in (("P", Stage.PREFILL), ("D", Stage.DECODE), ("P2", Stage.DECODE)):
        path.worked(sender, stage, [span(Activity.QUEUE, 1)], 102.0, num_bytes=5)
    path.pulled("P", 0, span(Activity.TRANSFER, 1), 102.0, num_rows=1, num_bytes=1)
    assert not list(path.activities())


def test_an_index_out_of_range_is_ignored() -> None:
    """A peer's fault is not to end the gateway."""
    path = asked(IMAGE)
    for index in (-1, 1):
        encoded(path, index, 101.0, Origin.TOWER)
        path.laid_out_item(index, 5)
        path.sent_request("r", 1, "P", None)
        path.pulled("P", index, span(Activity.TRANSFER, 1), 101.0, num_rows=1, num_bytes=1)
    assert (path.items[0].origin, path.items[0].num_rows, path.items[0].num_sent) == (None, 0, 0)


def test_an_answer_that_the_gateway_stopped_has_its_decode_time_all_the_same() -> None:
    path = asked()
    path.sent_request("r", 1, "P", "D")
    path.first_token = 101.0
    path.worked("D", Stage.DECODE, [span(Activity.HANDOFF, 2)], 101.5, num_bytes=9)
    path.close(103.0)
    assert shown(path)["decode"]["ms"] == {"handoff": 2.0, "decode": 2000.0}


def test_an_answer_of_one_token_was_never_decoded() -> None:
    path = asked()
    path.sent_request("r", 1, "P", "D")
    path.first_token = 101.0
    path.close(101.0)
    assert shown(path)["decode"] == {
        "worker": "D",
        "ms": {},
        "began_ms": {},
        "kv_bytes": 0,
    }


def test_moments_count_from_the_requests_arrival() -> None:
    path = asked()
    path.laid_out = 100.5
    path.sent_request("r", 1, "P", None)
    path.worked("P", Stage.PREFILL, [span(Activity.QUEUE, 1, 500)], 101.25, num_bytes=0)
    path.first_token = 101.25
    path.close(102.0)
    assert shown(path)["ms"] == {
        "layouts": 500.0,
        "admitted": 750.0,
        "first_token": 1250.0,
        "total": 2000.0,
    }


def test_activities_and_chunks_lie_on_the_time_since_arrival() -> None:
    """By a message's own way a worker may seem to begin before the request; none is shown so."""
    path = asked(IMAGE)
    encoded(path, 0, 100.5, Origin.TOWER, span(Activity.ENCODE, 20, ago_ms=250))
    path.sent_request("r", 1, "P", "D")
    path.worked("P", Stage.PREFILL, [span(Activity.QUEUE, 1, ago_ms=9000)], 101.0, num_bytes=0)
    path.computed("P", [(512, 400.0, 100.0), (3, 200.0, 50.0)], 101.0)
    path.computed("stranger", [(1, 1.0, 1.0)], 101.0)
    told = shown(path)
    assert told["items"][0]["began_ms"] == {"encode": 250.0}
    assert told["prefill"]["began_ms"] == {"queue": 0.0}
    assert told["prefill"]["chunks"] == [
        {"tokens": 512, "began_ms": 600.0, "ms": 100.0},
        {"tokens": 3, "began_ms": 800.0, "ms": 50.0},
    ]


def test_headers_say_who_how_often_and_where_the_time_went() -> None:
    path = asked(IMAGE, IMAGE)
    encoded(path, 0, 101.0, Origin.TOWER, span(Activity.ENCODE, 3))
    encoded(path, 1, 101.0, Origin.CACHE, span(Activity.ENCODE, 4))
    path.traceparent = "00-1-2-01"
    assert dict(path.headers()) == {
        "x-epd-request-id": "r",
        "x-epd-encoders": "E",
        "x-epd-cache-hits": "1",
        "x-epd-retries": "0",
        "server-timing": "encode-encode;dur=4.0",
        "traceparent": "00-1-2-01",
    }


def test_the_kind_of_a_request_is_that_of_its_items() -> None:
    assert [asked(*kinds).kind for kinds in ((), (IMAGE, IMAGE), (IMAGE, VIDEO))] == [
        "text",
        "image",
        "mixed",
    ]


def test_after_a_retry_moments_are_of_the_first_attempt_and_rows_of_all() -> None:
    path = asked(IMAGE)
    for attempt, prefill, now in ((1, "P", 101.0), (2, "P2", 105.0)):
        path.sent_request("r", attempt, prefill, "D")
        path.pulled(prefill, 0, span(Activity.TRANSFER, 1), now, num_rows=3, num_bytes=12)
        path.worked(prefill, Stage.PREFILL, [span(Activity.QUEUE, 1)], now, num_bytes=0)
    assert path.admitted == 101.0
    assert (path.items[0].num_sent, path.items[0].row_bytes) == (6, 24)
