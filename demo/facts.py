"""What a picture, clip or sound can hold, and the words for it. Everything else builds on these.

Places and sizes are fractions: x of the width, y of the height, radius of the shorter side.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "white")
CELLS = (
    *("top left", "top", "top right"),
    *("left", "center", "right"),
    *("bottom left", "bottom", "bottom right"),
)
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
NUMBERS = ("no", "one", "two", "three", "four", "five")

Colour = tuple[int, int, int]

TONES: dict[str, tuple[Colour, ...]] = {
    "red": ((220, 30, 35), (255, 0, 0), (200, 20, 30), (214, 39, 40)),
    "green": ((35, 160, 60), (0, 128, 0), (0, 200, 0), (44, 160, 44)),
    "blue": ((35, 70, 220), (0, 0, 255), (31, 119, 180), (30, 60, 160)),
    "yellow": ((245, 215, 40), (255, 255, 0), (255, 235, 59), (250, 220, 0)),
    "purple": ((135, 45, 170), (128, 0, 128), (148, 103, 189), (156, 39, 176)),
    "orange": ((250, 130, 20), (255, 165, 0), (255, 127, 14), (255, 140, 0)),
    "black": ((15, 15, 15), (0, 0, 0), (40, 40, 40)),
    "white": ((250, 250, 250), (255, 255, 255), (238, 238, 238)),
}
"""What goes by each name: among others the web's and matplotlib's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One flat shape. `turn` in radians, `stretch` of its width, `inner` of a star's radius."""

    shape: str
    colour: str
    rgb: Colour
    x: float
    y: float
    radius: float
    turn: float = 0.0
    stretch: float = 1.0
    inner: float = 0.45

    @property
    def cell(self) -> int:
        """Its centre's place in CELLS."""
        return min(2, int(self.y * 3)) * 3 + min(2, int(self.x * 3))

    @property
    def name(self) -> tuple[str, str]:
        return self.colour, self.shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What is behind the shapes: from `rgb` to `other` along `angle`, with `grain` (0 to 255)."""

    rgb: Colour
    other: Colour
    angle: float = 0.0
    grain: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A picture, or one frame: `width` by `height` pixels, and shapes in the order of reading."""

    width: int
    height: int
    ground: Ground
    things: tuple[Thing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """One shape that moves, or stands still where `direction` is None."""

    frames: tuple[Scene, ...]
    direction: str | None

    @property
    def thing(self) -> Thing:
        return self.frames[0].things[0]


def in_cell(cell: int) -> str:
    """As in "in the top left", "on the right"."""
    word = CELLS[cell]
    if word in ("top", "bottom"):
        return f"at the {word}"
    return f"on the {word}" if word in ("left", "right") else f"in the {word}"


def with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def listed(parts: list[str]) -> str:
    """As in "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def plural(word: str, num: int) -> str:
    return word if num == 1 else word + "s"


def sampled_rgb(colour: str, rng: random.Random) -> Colour:
    """Between two of its tones, and a little off."""
    first, second = rng.choice(TONES[colour]), rng.choice(TONES[colour])
    share, far = rng.random(), rng.choice((0, 8, 16))

    def mixed(a: int, b: int) -> int:
        value = a + (b - a) * share + rng.uniform(-far, far)
        return min(255, max(0, round(value)))

    return (mixed(first[0], second[0]), mixed(first[1], second[1]), mixed(first[2], second[2]))
