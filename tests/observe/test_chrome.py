"""Traces of requests, against the rules of the trace event format."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from typing import Any

import pytest

from epd.observe.chrome import Traced, trace

PATH: dict[str, Any] = {
    "request_id": "0123456789abcdef",
    "attempts": 1,
    "retries": 0,
    "ms": {"layouts": 20.0, "admitted": 30.0, "first_token": 80.0, "total": 280.0},
    "items": [
        {
            "index": 0,
            "modality": "image",
            "encoder": "encode-0",
            "attempts": 1,
            "bytes": 4096,
            "rows": 16,
            "rows_sent": 16,
            "row_bytes": 8192,
            "cached": False,
            "rows_from": "tower",
            "batch_items": 1,
            "ms": {"queue": 3.0, "decode": 5.0, "preprocess": 4.0, "encode": 30.0, "transfer": 1.5},
            "began_ms": {
                "queue": 1.0,
                "decode": 2.0,
                "preprocess": 7.0,
                "encode": 15.0,
                "transfer": 46.0,
            },
        }
    ],
    "prefill": {
        "worker": "prefill-0",
        "ms": {"queue": 1.0, "prefill": 20.0, "wait": 15.0, "merge": 0.2},
        "began_ms": {"queue": 31.0, "prefill": 32.0, "wait": 36.0, "merge": 32.0},
        "cached_tokens": 0,
        "chunks": [
            {"tokens": 5, "began_ms": 32.0, "ms": 4.0},
            {"tokens": 17, "began_ms": 51.0, "ms": 16.0},
        ],
    },
    "decode": {
        "worker": "decode-0",
        "ms": {"transfer": 30.0, "handoff": 3.0, "decode": 190.0},
        "began_ms": {"transfer": 52.0, "handoff": 79.0, "decode": 85.0},
        "kv_bytes": 65536,
    },
}


def made(*at_ms: float, **more: float) -> list[dict[str, Any]]:
    """The events, as a reader of the file gets them."""
    requests = [Traced(at_ms=at, path=copy.deepcopy(PATH), **more) for at in at_ms]
    found: list[dict[str, Any]] = json.loads(json.dumps(trace(requests)))["traceEvents"]
    return found


def check(events: list[dict[str, Any]]) -> None:
    """What readers of the format rely on; slices of a track lie inside each other or apart."""
    named = {event["pid"] for event in events if event["name"] == "process_name"}
    tracks = defaultdict(list)
    flows = defaultdict(list)
    for event in events:
        assert isinstance(event["name"], str) and event["pid"] in named
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        match event["ph"]:
            case "M":
                assert event["args"]
            case "X":
                assert event["ts"] >= 0 and event["dur"] >= 0
                tracks[event["pid"], event["tid"]].append(event)
            case "s" | "f":
                flows[event["id"]].append(event)
            case other:
                raise AssertionError(other)
    for of_track in tracks.values():
        _check_nesting(of_track)
    for start, end in flows.values():
        assert (start["ph"], end["ph"], end["bp"]) == ("s", "f", "e")
        assert start["ts"] <= end["ts"]
        for event in (start, end):
            on_track = tracks[event["pid"], event["tid"]]
            assert any(one["ts"] <= event["ts"] <= one["ts"] + one["dur"] for one in on_track)


def _check_nesting(slices: list[dict[str, Any]]) -> None:
    open_until: list[float] = []
    for one in sorted(slices, key=lambda event: (event["ts"], -event["dur"])):
        while open_until and open_until[-1] <= one["ts"]:
            open_until.pop()
        assert not open_until or one["ts"] + one["dur"] <= open_until[-1], one
        open_until.append(one["ts"] + one["dur"])


def by_worker(events: list[dict[str, Any]]) -> dict[str, set[str]]:
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    found = defaultdict(set)
    for event in events:
        if event["ph"] == "X":
            found[names[event["pid"]]].add(event["name"])
    return dict(found)


def test_each_worker_has_tracks_of_what_it_did() -> None:
    events = made(1000.0)
    check(events)
    assert by_worker(events) == {
        "gateway": {"01234567", "layouts", "admission", "prefill", "answer"},
        "encode-0": {"image 1 of 01234567", "decode", "preprocess", "encode"},
        "prefill-0": {
            *{"prompt of 01234567", "prefill 5", "prefill 17"},
            *{"rows of image 1 of 01234567", "01234567 waits for rows"},
        },
        "decode-0": {"KV of 01234567", "hand-off", "tokens of 01234567"},
    }


def test_times_begin_with_the_first_request_and_are_microseconds() -> None:
    events = [event for event in made(1000.0) if event["ph"] == "X"]
    encode = next(event for event in events if event["name"] == "encode")
    assert (encode["ts"], encode["dur"], encode["cat"]) == (15000, 30000, "encode")
    assert min(event["ts"] for event in events) == 0


@pytest.mark.parametrize("gap_ms", [0.0, 7.0, 50.0, 1000.0])
def test_requests_that_overlap_stand_on_tracks_of_their_own(gap_ms: float) -> None:
    events = made(*(gap_ms * number for number in range(4)))
    check(events)
    lanes = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert ("requests 2" in lanes) == (gap_ms < 280)


def test_its_client_is_a_track_too_where_it_is_known() -> None:
    events = made(5.0, sent_ms=0.0, ended_ms=300.0)
    check(events)
    assert by_worker(events)["client"] == {"01234567"}


def test_a_request_that_failed_early_has_what_is_known_of_it() -> None:
    path = {**PATH, "ms": {"total": 5.0}, "items": [], "prefill": None, "decode": None}
    path = {key: value for key, value in path.items() if value is not None}
    events = trace([Traced(at_ms=0.0, path=path)])["traceEvents"]
    check(events)
    assert by_worker(events) == {"gateway": {"01234567", "answer"}}


def test_activities_that_overlap_are_cut_so_that_they_nest() -> None:
    """A file that is read in pieces has all of them as one span, which is longer than its place."""
    path = copy.deepcopy(PATH)
    path["items"][0]["ms"]["decode"] = 12.0
    events = trace([Traced(at_ms=0.0, path=path)])["traceEvents"]
    check(events)


def test_the_check_itself_sees_slices_that_overlap() -> None:
    events = made(0.0)
    event = next(event for event in events if event["name"] == "preprocess")
    event["dur"] += 10**6
    with pytest.raises(AssertionError):
        check(events)
