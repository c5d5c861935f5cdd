"""What is asked: each data set is a pure function of its shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from epd.bench.datasets.asks import Ask
from epd.bench.datasets.files import custom, sharegpt
from epd.bench.datasets.made import made
from epd.bench.datasets.shape import KINDS, Shape
from epd.bench.datasets.trace import trace
from epd.bench.datasets.words import Measure

__all__ = ["DATASETS", "KINDS", "Ask", "Measure", "Shape", "asks"]

DATASETS: dict[str, Callable[[Shape], list[Ask]]] = {
    "random": partial(made, kind="text"),
    "sharegpt": sharegpt,
    "custom": custom,
    "image": partial(made, kind="image"),
    "video": partial(made, kind="video"),
    "audio": partial(made, kind="audio"),
    "mixed": partial(made, kind="mixed"),
    "trace": trace,
}


def asks(shape: Shape) -> list[Ask]:
    """The requests of a data set."""
    return DATASETS[shape.name](shape)
