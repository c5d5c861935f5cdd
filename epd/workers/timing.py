"""Where the time of requests goes on one language worker. Step thread only.

Moments are those of the device's work, where it is asked to work and the host goes on, see
epd.models.laps. Decode steps are not timed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from epd.types import Activity, RequestKey, Span, Stage
from epd.wire.messages import Chunk, EmbeddingData, ItemSpans, RequestSpans, RowsIn

log = logging.getLogger(__name__)

MOST_CHUNKS = 64
"""Of one prompt that are told apart; what comes after these is told as one."""


@dataclass(slots=True)
class _Rows:
    """Rows of one item that were pulled: since when they came, and until when."""

    began: float
    ended: float
    num_rows: int = 0
    num_bytes: int = 0


@dataclass(slots=True)
class _Chunk:
    began: float
    seconds: float = 0.0
    num_tokens: int = 0


@dataclass(slots=True)
class _Times:
    began: float
    computed: int = 0
    prefill_s: float = 0.0
    chunks: list[_Chunk] = field(default_factory=list)
    wait_s: float = 0.0
    waiting_since: float | None = None
    waited_first: float | None = None
    rows: dict[int, _Rows] = field(default_factory=dict)
    kv_since: float | None = None
    kv_bytes: int = 0
    state_at: float | None = None
    decoding_since: float | None = None


class RequestTimes:
    """Requests from their admission or reservation to their end. Unknown ones are ignored."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._requests: dict[RequestKey, _Times] = {}

    def began(self, key: RequestKey, cached_tokens: int = 0) -> None:
        """It was admitted with KV of so many tokens, or its KV is reserved."""
        self._requests[key] = _Times(self._clock(), cached_tokens)

    def forget(self, key: RequestKey) -> None:
        """It is over here."""
        self._requests.pop(key, None)

    def __len__(self) -> int:
        return len(self._requests)

    # ---- prefill

    def now(self) -> float:
        """For what says since or until when."""
        return self._clock()

    def landed(self, part: EmbeddingData, *, seconds: float, ended: float) -> None:
        """A part of an item has been in its place since then."""
        times = self._requests.get(part.request)
        if times is not None:
            rows = times.rows.setdefault(part.item.index, _Rows(ended - seconds, ended))
            rows.ended = ended
            rows.num_rows += part.num_rows
            rows.num_bytes += part.payload.nbytes

    def computed(self, key: RequestKey, num_tokens: int, *, seconds: float, ended: float) -> None:
        """A step that ended then gave KV to the prompt's first `num_tokens` tokens."""
        times = self._requests.get(key)
        if times is not None:
            if len(times.chunks) < MOST_CHUNKS:
                times.chunks.append(_Chunk(ended - seconds))
            chunk = times.chunks[-1]
            chunk.num_tokens += num_tokens - times.computed
            chunk.seconds += seconds
            times.computed = num_tokens
            times.prefill_s += seconds

    def ready(self, key: RequestKey, ready_tokens: int, at: float) -> None:
        """Since then rows are there for so many tokens: does the request wait for more?"""
        times = self._requests.get(key)
        if times is None:
            return
        waits = ready_tokens <= times.computed
        if waits and times.waiting_since is None:
            times.waiting_since = at
            times.waited_first = times.waited_first or times.waiting_since
        elif not waits and times.waiting_since is not None:
            times.wait_s += at - times.waiting_since
            times.waiting_since = None

    def prefilled(self, key: RequestKey, merge_s: float | None) -> RequestSpans | None:
        """The whole prompt has KV; None: it has no items. Queueing is what is left of the time."""
        times = self._requests.get(key)
        if times is None:
            return None
        now = times.decoding_since = self._clock()
        queue_s = max(0.0, now - times.began - times.wait_s - times.prefill_s)
        computing = times.chunks[0].began if times.chunks else now
        spans = [
            _span(Activity.QUEUE, times.began, queue_s, now),
            _span(Activity.PREFILL, computing, times.prefill_s, now),
        ]
        if merge_s is not None:
            waiting = times.began if times.waited_first is None else times.waited_first
            spans.append(_span(Activity.WAIT, waiting, times.wait_s, now))
            spans.append(_span(Activity.MERGE, computing, merge_s, now))
        return RequestSpans(
            request=key,
            stage=Stage.PREFILL,
            spans=tuple(spans),
            rows=tuple(_rows_in(index, rows, now) for index, rows in sorted(times.rows.items())),
            chunks=tuple(_told(chunk, now) for chunk in times.chunks),
        )

    # ---- decode

    def offered(self, key: RequestKey) -> None:
        """Prefill has KV for it, the first time or more."""
        times = self._requests.get(key)
        if times is not None and times.kv_since is None:
            times.kv_since = self._clock()

    def kv_landed(self, key: RequestKey, num_bytes: int) -> None:
        """A chunk of KV is in its pages."""
        times = self._requests.get(key)
        if times is not None:
            times.kv_bytes += num_bytes

    def handed_off(self, key: RequestKey) -> None:
        """Prefill is done and the state is here; the last KV may be on its way."""
        times = self._requests.get(key)
        if times is not None:
            times.state_at = self._clock()

    def started(self, key: RequestKey, at: float) -> RequestSpans | None:
        """All of it is here since then, and decoding begins."""
        times = self._requests.get(key)
        if times is None:
            return None
        now, times.decoding_since = self._clock(), at
        kv, state = times.kv_since or at, times.state_at or at
        spans = (
            _span(Activity.TRANSFER, kv, at - kv, now),
            _span(Activity.HANDOFF, state, at - state, now),
        )
        return RequestSpans(request=key, stage=Stage.DECODE, spans=spans, num_bytes=times.kv_bytes)

    def ended(self, key: RequestKey) -> RequestSpans | None:
        """Its last token is there."""
        times = self._requests.get(key)
        if times is None or times.decoding_since is None:
            return None
        now, since = self._clock(), times.decoding_since
        spans = (_span(Activity.DECODE, since, now - since, now),)
        return RequestSpans(request=key, stage=Stage.DECODE, spans=spans)


def log_spans(told: ItemSpans | RequestSpans) -> None:
    """At level debug, what the gateway is told."""
    if log.isEnabledFor(logging.DEBUG):
        if isinstance(told, ItemSpans):
            whose = {"request": told.item.request_id, "item": told.item.index}
        else:
            whose = {"request": told.request.request_id, "stage": told.stage.value}
        taken = {f"{span.activity}_ms": round(span.ms, 3) for span in told.spans}
        log.debug("worked", extra={**whose, **taken})


def _rows_in(index: int, rows: _Rows, now: float) -> RowsIn:
    return RowsIn(
        index=index,
        num_rows=rows.num_rows,
        num_bytes=rows.num_bytes,
        transfer=_span(Activity.TRANSFER, rows.began, rows.ended - rows.began, now),
    )


def _told(chunk: _Chunk, now: float) -> Chunk:
    ago_ms, ms = 1000 * (now - chunk.began), 1000 * chunk.seconds
    return Chunk(num_tokens=chunk.num_tokens, ago_ms=ago_ms, ms=ms)


def _span(activity: Activity, began: float, seconds: float, now: float) -> Span:
    return Span(activity=activity, ago_ms=1000 * (now - began), ms=1000 * seconds)
