"""Paths of requests as a trace in Chrome's JSON format, which Perfetto opens: a process per worker,
and in it as many tracks as it did things at once.

Works on what clients see of a path (`usage.epd`), so that a server's answers, its recent requests
and the file of a load test all become the same trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]

GATEWAY, CLIENT = "gateway", "client"
_ORDER = (CLIENT, GATEWAY, "encode", "prefill", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A request. All moments are milliseconds on one clock; `path` counts from `at_ms`.

    `sent_ms` and `ended_ms` are its client's own, where they are known.
    """

    at_ms: float
    path: Mapping[str, Any]
    sent_ms: float | None = None
    ended_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    """What a worker did. `inner` lies inside, one after the other."""

    worker: str
    stage: str
    group: str
    name: str
    begin: float
    end: float
    args: Mapping[str, Any] = field(default_factory=dict)
    inner: Sequence[tuple[str, float, float]] = ()


def trace(requests: Iterable[Traced]) -> dict[str, Any]:
    """The whole file. Its times begin with the first request."""
    known = [list(_slices(one)) for one in requests]
    slices = [one for of_request in known for one in of_request]
    zero = min((one.begin for one in slices), default=0.0)
    tracks = _Tracks(slices)
    events = list(tracks.names())
    for one in slices:
        events += [{**event, **tracks.of(one)} for event in _events(one, zero)]
    for number, of_request in enumerate(known, 1):
        events += _flow(number, [(one, tracks.of(one)) for one in of_request], zero)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


# ---- what was done for a request


def _slices(request: Traced) -> Iterator[_Slice]:
    """The gateway's first; the others follow it by arrows."""
    path, at = request.path, request.at_ms
    name = str(path["request_id"])[:8]
    yield _of_gateway(name, path, at)
    if request.sent_ms is not None and request.ended_ms is not None:
        yield _Slice(
            worker=CLIENT,
            stage=CLIENT,
            group="requests",
            name=name,
            begin=request.sent_ms,
            end=request.ended_ms,
        )
    for item in path["items"]:
        yield from _of_item(name, item, path, at)
    if "prefill" in path:
        yield from _of_prefill(name, path["prefill"], at)
    if "decode" in path:
        yield from _of_decode(name, path["decode"], at)


def _of_gateway(name: str, path: Mapping[str, Any], at: float) -> _Slice:
    ms = path["ms"]
    marks = ("layouts", "admitted", "first_token", "total")
    moments = [(mark, at + ms[mark]) for mark in marks if mark in ms]
    begins = [at, *(moment for _, moment in moments)]
    words = {"layouts": "layouts", "admitted": "admission", "first_token": "prefill"}
    return _Slice(
        worker=GATEWAY,
        stage=GATEWAY,
        group="requests",
        name=name,
        begin=at,
        end=max(begins),
        args={key: path[key] for key in ("request_id", "attempts", "status") if key in path},
        inner=[
            (words.get(mark, "answer"), begin, moment)
            for begin, (mark, moment) in zip(begins, moments, strict=False)
        ],
    )


def _of_item(
    name: str, item: Mapping[str, Any], path: Mapping[str, Any], at: float
) -> Iterator[_Slice]:
    title = f"{item['modality']} {item['index'] + 1} of {name}"
    spans = _spans(item, at)
    rows = spans.pop("transfer", None)
    if spans and item["encoder"]:
        told = ("rows", "rows_from", "batch_items", "bytes", "attempts")
        yield _Slice(
            worker=item["encoder"],
            stage="encode",
            group="items",
            name=title,
            begin=min(begin for begin, _ in spans.values()),
            end=max(end for _, end in spans.values()),
            args={"request": path["request_id"], "ms": item["ms"], **{k: item[k] for k in told}},
            inner=[(key, *span) for key, span in spans.items() if key != "queue"],
        )
    if rows is not None:
        args = {"rows": item["rows_sent"], "bytes": item["row_bytes"]}
        yield _one(path["prefill"]["worker"], "prefill", "rows", f"rows of {title}", rows, args)


def _of_prefill(name: str, part: Mapping[str, Any], at: float) -> Iterator[_Slice]:
    spans = _spans(part, at)
    chunks = [
        (f"prefill {one['tokens']}", at + one["began_ms"], at + one["began_ms"] + one["ms"])
        for one in part["chunks"]
    ]
    wait = spans.pop("wait", None)
    if spans or chunks:
        ends = [end for _, end in spans.values()] + [end for *_, end in chunks]
        begins = [begin for begin, _ in spans.values()] + [begin for _, begin, _ in chunks]
        yield _Slice(
            worker=part["worker"],
            stage="prefill",
            group="prompts",
            name=f"prompt of {name}",
            begin=min(begins),
            end=max(ends),
            args={"ms": part["ms"], "cached_tokens": part["cached_tokens"]},
            inner=chunks,
        )
    if wait is not None and wait[1] > wait[0]:
        yield _one(part["worker"], "prefill", "waits", f"{name} waits for rows", wait, {})


def _of_decode(name: str, part: Mapping[str, Any], at: float) -> Iterator[_Slice]:
    spans = _spans(part, at)
    if came := spans.get("transfer"):
        handoff = spans.get("handoff")
        inner = [("hand-off", *handoff)] if handoff is not None else []
        yield _Slice(
            worker=part["worker"],
            stage="decode",
            group="KV",
            name=f"KV of {name}",
            begin=came[0],
            end=max(came[1], *(end for *_, end in inner), came[0]),
            args={"bytes": part["kv_bytes"]},
            inner=inner,
        )
    if ran := spans.get("decode"):
        yield _one(part["worker"], "decode", "tokens", f"tokens of {name}", ran, {})


def _one(
    worker: str,
    stage: str,
    group: str,
    name: str,
    span: tuple[float, float],
    args: Mapping[str, Any],
) -> _Slice:
    begin, end = span
    return _Slice(
        worker=worker, stage=stage, group=group, name=name, begin=begin, end=end, args=args
    )


def _spans(part: Mapping[str, Any], at: float) -> dict[str, tuple[float, float]]:
    """(begin, end) by activity, those that began first first."""
    began = sorted(part["began_ms"].items(), key=lambda item: float(item[1]))
    return {name: (at + since, at + since + part["ms"][name]) for name, since in began}


# ---- where it stands


class _Tracks:
    """A process for each worker, and in it tracks that have no two slices at once."""

    def __init__(self, slices: Sequence[_Slice]) -> None:
        stages = {one.worker: _ORDER.index(one.stage) for one in reversed(slices)}
        ordered = sorted(stages, key=lambda worker: (stages[worker], worker))
        self._pids = {worker: 1 + place for place, worker in enumerate(ordered)}
        self._tids: dict[tuple[str, str], int] = {}
        self._of: dict[int, Event] = {}
        busy: dict[tuple[str, str], list[float]] = {}
        for one in sorted(slices, key=lambda one: (one.begin, one.end)):
            lanes = busy.setdefault((one.worker, one.group), [])
            lane = next((place for place, end in enumerate(lanes) if end <= one.begin), len(lanes))
            lanes[lane:] = [one.end, *lanes[lane + 1 :]]
            name = one.worker, f"{one.group} {lane + 1}"
            tid = self._tids.setdefault(name, 1 + len(self._tids))
            self._of[id(one)] = {"pid": self._pids[one.worker], "tid": tid}

    def of(self, one: _Slice) -> Event:
        """Where this slice is drawn."""
        return self._of[id(one)]

    def names(self) -> Iterator[Event]:
        """What the processes and their tracks are called, in the order of a request's way."""
        for worker, pid in self._pids.items():
            yield _meta("process_name", pid, 0, name=worker)
            yield _meta("process_sort_index", pid, 0, sort_index=pid)
        for (worker, name), tid in self._tids.items():
            yield _meta("thread_name", self._pids[worker], tid, name=name)


def _meta(what: str, pid: int, tid: int, **args: Any) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


# ---- as events


def _events(one: _Slice, zero: float) -> Iterator[Event]:
    """The slice, and what lies inside: cut where two of it would overlap."""
    begin, end = _us(one.begin, zero), _us(one.end, zero)
    yield _complete(one.name, one.stage, begin, end, dict(one.args))
    free = begin
    for name, first, last in sorted(one.inner, key=lambda inner: inner[1]):
        since, until = max(free, _us(first, zero)), min(end, _us(last, zero))
        if until >= since:
            yield _complete(name, one.stage, since, until, {})
            free = until


def _complete(name: str, stage: str, begin: int, end: int, args: dict[str, Any]) -> Event:
    return {"ph": "X", "name": name, "cat": stage, "ts": begin, "dur": end - begin, "args": args}


def _flow(
    number: int, slices: Sequence[tuple[_Slice, Mapping[str, int]]], zero: float
) -> Iterator[Event]:
    """Arrows from the gateway's slice to each of the others."""
    (first, source), *others = slices
    for place, (one, where) in enumerate(others):
        if one.stage == CLIENT:
            continue
        about = {"name": "request", "cat": "request", "id": f"{number}.{place}"}
        yield {"ph": "s", **about, **source, "ts": _us(first.begin, zero)}
        yield {"ph": "f", "bp": "e", **about, **where, "ts": _us(one.begin, zero)}


def _us(ms: float, zero: float) -> int:
    return round(1000 * (ms - zero))
