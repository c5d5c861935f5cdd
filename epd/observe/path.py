"""The path of one request: who did what for it, and how long that took.

Workers tell ages, so every time here is the gateway's own clock: seconds that do not jump. The
names of activities, stages and modalities are ours, never a client's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from epd.types import Activity, Modality, Origin, Span, Stage


@dataclass(frozen=True, slots=True)
class Timed:
    """An activity since `began`. Done in pieces, it may have ended later than `seconds` after."""

    began: float
    seconds: float


Times = dict[Activity, Timed]


def timed(spans: Iterable[Span], now: float) -> Times:
    """Spans that were told now."""
    return {
        span.activity: Timed(now - max(0.0, span.ago_ms) / 1000, max(0.0, span.ms) / 1000)
        for span in spans
    }


@dataclass(slots=True, kw_only=True)
class ItemPath:
    """One item. `num_rows` are those of its layout, `num_sent` those that prefill pulled."""

    modality: Modality
    encoder: str = ""
    attempts: int = 0
    origin: Origin | None = None
    num_rows: int = 0
    num_sent: int = 0
    num_bytes: int = 0
    row_bytes: int = 0
    batch_items: int = 0
    times: Times = field(default_factory=dict)

    @property
    def cached(self) -> bool:
        """No tower ran for it."""
        return self.origin not in (None, Origin.TOWER)


@dataclass(slots=True, kw_only=True)
class PartPath:
    """What one language stage did: its worker, and its share of the time. `chunks` are prefill's
    steps, each with the tokens that it computed."""

    worker: str = ""
    num_bytes: int = 0
    times: Times = field(default_factory=dict)
    chunks: list[tuple[int, Timed]] = field(default_factory=list)


@dataclass(slots=True)
class Path:
    """From the client's request to its last token; all moments are on the gateway's clock."""

    request_id: str
    began: float
    items: list[ItemPath] = field(default_factory=list)
    parts: dict[Stage, PartPath] = field(default_factory=dict)
    num_cached_tokens: int = 0
    laid_out: float | None = None
    admitted: float | None = None
    first_token: float | None = None
    ended: float | None = None
    traceparent: str = ""
    _admitted: dict[str, set[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, request_id: str, began: float, modalities: Sequence[Modality]) -> Path:
        """Nothing has been done yet."""
        return cls(request_id, began, [ItemPath(modality=modality) for modality in modalities])

    # ---- what the gateway sees

    def sent_item(self, index: int, encoder: str) -> None:
        """An encoder got the job, the first time or once more."""
        item = self.items[index]
        item.encoder = encoder
        item.attempts += 1

    def sent_request(self, part: str, attempt: int, prefill: str, decode: str | None) -> None:
        """The prompt goes to its workers. `part`: the request, or one of its choices."""
        self._admitted.setdefault(part, set()).add(attempt)
        self.parts = {Stage.PREFILL: PartPath(worker=prefill)}
        self.parts[Stage.DECODE] = PartPath(worker=decode or prefill)

    def refused(self, part: str, attempt: int) -> None:
        """There was no room, so that was no attempt."""
        self._admitted.get(part, set()).discard(attempt)

    def laid_out_item(self, index: int, num_rows: int) -> None:
        """An item's layout is known."""
        if 0 <= index < len(self.items):
            self.items[index].num_rows = num_rows

    def close(self, now: float) -> None:
        """It ended. Where the gateway stopped it, decode has not said how long it took."""
        self.ended = now
        part = self.parts.get(Stage.DECODE)
        if part is None or self.first_token is None or Activity.DECODE in part.times:
            return
        if part.times or part.worker == self.parts[Stage.PREFILL].worker:
            part.times[Activity.DECODE] = Timed(self.first_token, now - self.first_token)

    # ---- what workers say; of the workers of another attempt nothing is heard

    def encoded(
        self,
        sender: str,
        index: int,
        spans: Iterable[Span],
        now: float,
        *,
        origin: Origin | None,
        num_bytes: int,
        batch_items: int,
    ) -> None:
        """What an item took at its encoder, so far."""
        item = self.items[index] if 0 <= index < len(self.items) else None
        if item is None or item.encoder != sender:
            return
        item.times |= timed(spans, now)
        item.origin = origin or item.origin
        item.num_bytes, item.batch_items = num_bytes, batch_items

    def pulled(
        self, sender: str, index: int, span: Span, now: float, *, num_rows: int, num_bytes: int
    ) -> None:
        """Prefill got rows of an item."""
        if self._by(sender, Stage.PREFILL) is not None and 0 <= index < len(self.items):
            item = self.items[index]
            item.num_sent += num_rows
            item.row_bytes += num_bytes
            item.times |= timed([span], now)

    def worked(
        self, sender: str, stage: Stage, spans: Iterable[Span], now: float, *, num_bytes: int
    ) -> None:
        """What the request took at a language stage. After prefill, rows not pulled were not
        needed."""
        part = self._by(sender, stage)
        if part is None:
            return
        part.times |= timed(spans, now)
        part.num_bytes += num_bytes
        queue = part.times.get(Activity.QUEUE)
        if self.admitted is None and queue is not None:
            self.admitted = queue.began
        for item in self.items if stage is Stage.PREFILL else ():
            if not item.num_sent and item.origin is not Origin.TOWER:
                item.origin = Origin.KV

    def computed(self, sender: str, chunks: Iterable[tuple[int, float, float]], now: float) -> None:
        """(tokens, milliseconds ago, milliseconds) of each step that computed the prompt."""
        part = self._by(sender, Stage.PREFILL)
        if part is not None:
            part.chunks += [
                (num_tokens, Timed(now - max(0.0, ago_ms) / 1000, max(0.0, ms) / 1000))
                for num_tokens, ago_ms, ms in chunks
            ]

    def _by(self, sender: str, stage: Stage) -> PartPath | None:
        part = self.parts.get(stage)
        return part if part is not None and part.worker == sender else None

    # ---- what it comes to

    @property
    def attempts(self) -> int:
        """How often its prompt was taken on, counted along the choice that needed most."""
        tried = {part: len(attempts) for part, attempts in self._admitted.items()}
        whole = tried.pop(self.request_id, 0)
        return max(1, whole + max(tried.values(), default=0))

    @property
    def retries(self) -> int:
        """What was done again because a worker had lost it."""
        return self.attempts - 1 + sum(max(0, item.attempts - 1) for item in self.items)

    @property
    def encoders(self) -> list[str]:
        """Who had its items, each once."""
        return list(dict.fromkeys(item.encoder for item in self.items if item.encoder))

    @property
    def num_hits(self) -> int:
        """Items that cost no tower."""
        return sum(item.cached for item in self.items)

    def num_rows(self) -> Counter[Modality]:
        """Prompt tokens that take rows, by the modality of their items."""
        found = Counter[Modality]()
        for item in self.items:
            found[item.modality] += item.num_rows
        return found

    @property
    def pending(self) -> list[str]:
        """The modalities of items that have no rows yet."""
        return [item.modality.value for item in self.items if item.origin is None]

    @property
    def kind(self) -> str:
        """The modality of its items, or text, or mixed."""
        kinds = {item.modality.value for item in self.items}
        return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "text"

    def activities(self) -> Iterator[tuple[Stage, str, Activity, Timed]]:
        """(stage, kind, activity, how long) of all that was told."""
        for item in self.items:
            for activity, span in item.times.items():
                stage = Stage.PREFILL if activity is Activity.TRANSFER else Stage.ENCODE
                yield stage, item.modality.value, activity, span
        for stage, part in self.parts.items():
            for activity, span in part.times.items():
                yield stage, self.kind, activity, span

    def headers(self) -> list[tuple[str, str]]:
        """What every answer says of itself, with the stages that are known by now."""
        found = [
            ("x-epd-request-id", self.request_id),
            ("x-epd-encoders", ",".join(self.encoders)),
            ("x-epd-cache-hits", str(self.num_hits)),
            ("x-epd-retries", str(self.retries)),
            ("server-timing", ", ".join(self._server_timing())),
        ]
        return [*found, ("traceparent", self.traceparent)] if self.traceparent else found

    def _server_timing(self) -> Iterator[str]:
        """One entry per stage and activity, the longest of all items."""
        longest: dict[str, float] = {}
        for stage, _, activity, span in self.activities():
            name = f"{stage}-{activity}"
            longest[name] = max(longest.get(name, 0.0), span.seconds)
        if self.first_token is not None:
            longest["first-token"] = self.first_token - self.began
        for name, seconds in longest.items():
            yield f"{name};dur={milliseconds(seconds)}"


def milliseconds(seconds: float) -> float:
    """As clients see them."""
    return round(1000 * seconds, 3)
