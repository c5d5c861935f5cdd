"""What every request of a made-up data set looks like, and items that come again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from epd.bench.datasets.words import Measure
from epd.bench.items import ITEM_KINDS, Clip, Item, Picture, Sound

KINDS = ("text", *ITEM_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Lengths are in tokens. Each is drawn from `range_ratio` times itself up to itself, both
    included, as sglang's tool does it: 0 is anything from 1, 1 is always the same.

    `hit_rate` is the share of items that are taken from a pool of `pool` per kind, which the
    warm-up sends first; all others are new.
    """

    name: str = "random"
    path: str | None = None
    num: int = 1000
    seed: str = "1"
    input_len: int = 1024
    output_len: int = 1024
    range_ratio: float = 0.0
    sharegpt_output_len: int | None = None
    image_count: int = 1
    random_image_count: bool = False
    image_size: tuple[int, int] = (1920, 1080)
    image_format: str = "jpeg"
    image_content: str = "random"
    video_count: int = 1
    video_size: tuple[int, int] = (640, 360)
    video_frames: int = 16
    video_fps: float = 8.0
    audio_count: int = 1
    audio_seconds: float = 5.0
    mix: Mapping[str, float] = field(default_factory=dict)
    hit_rate: float = 0.0
    pool: int = 8
    trace_speed: float = 1.0
    measure: Measure = Measure()

    def item(self, kind: str, seed: str) -> Item:
        """The item of this kind that this seed gives."""
        if kind == "image":
            width, height = self.image_size
            return Picture(
                width=width,
                height=height,
                seed=seed,
                format=self.image_format,
                content=self.image_content,
            )
        if kind == "video":
            width, height = self.video_size
            return Clip(
                width=width, height=height, frames=self.video_frames, fps=self.video_fps, seed=seed
            )
        return Sound(seconds=self.audio_seconds, seed=seed)

    def count(self, kind: str, rng: random.Random) -> int:
        """How many items a request of this kind has."""
        if kind == "image":
            return rng.randint(1, self.image_count) if self.random_image_count else self.image_count
        return {"video": self.video_count, "audio": self.audio_count}.get(kind, 0)

    def length(self, full: int, rng: random.Random) -> int:
        """A length, drawn."""
        return rng.randint(max(1, int(full * self.range_ratio)), max(1, full))

    def pooled(self, kind: str) -> list[Item]:
        """The items that come again."""
        return [self.item(kind, f"{self.seed} again {number}") for number in range(self.pool)]


def with_items(shape: Shape, wanted: list[dict[str, int]]) -> list[tuple[Item, ...]]:
    """Items for each request of `wanted`, which says how many of each kind it has.

    Of K items of a kind in all, exactly round(hit_rate * K) are from the pool, at places that the
    seed chooses.
    """
    give = {
        kind: _giver(shape, kind, sum(request.get(kind, 0) for request in wanted))
        for kind in ITEM_KINDS
    }
    return [
        tuple(give[kind]() for kind, num in request.items() for _ in range(num))
        for request in wanted
    ]


def _giver(shape: Shape, kind: str, num: int) -> Callable[[], Item]:
    rng = random.Random(f"items {kind} {shape.seed}")
    hits = set(rng.sample(range(num), round(shape.hit_rate * num)))
    pool = shape.pooled(kind) if hits else []
    places = iter(range(num))

    def give() -> Item:
        place = next(places)
        return rng.choice(pool) if place in hits else shape.item(kind, f"{shape.seed} {place}")

    return give
