"""Draws lots for pictures and clips: what is in them, where, before what ground."""

from __future__ import annotations

import math
import random

from demo.facts import (
    COLOURS,
    DIRECTIONS,
    SHAPES,
    Colour,
    Ground,
    Motion,
    Scene,
    Thing,
    sampled_rgb,
)

NUM_FRAMES = 8
_LEAST_CONTRAST = 165  # sum of the three differences
_TRIES = 60


def sampled_size(rng: random.Random, least: int = 112, most: int = 1024) -> tuple[int, int]:
    """Width and height in pixels, of any format up to 2:1; often one that is common."""
    longer = round(math.exp(rng.uniform(math.log(least), math.log(most))))
    common = (1.0, 1.0, 4 / 3, 3 / 2, 16 / 9, 2.0)
    ratio = rng.choice(common) if rng.random() < 0.6 else rng.uniform(1, 2)
    longer = max(longer, round(least * ratio))
    sides = min(longer, most), max(least, round(min(longer, most) / ratio))
    return sides if rng.random() < 0.65 else (sides[1], sides[0])


def sampled_ground(colours: list[Colour], rng: random.Random) -> Ground:
    """One that all these colours stand out from, the more of them the less."""
    least = float(_LEAST_CONTRAST)
    while True:
        least *= 0.98
        lot = rng.random()
        if lot < 0.36:
            rgb: Colour = (255, 255, 255) if rng.random() < 0.8 else (245, 245, 245)
        elif lot < 0.45:
            rgb = (0, 0, 0) if rng.random() < 0.5 else (30, 30, 30)
        elif lot < 0.65:
            rgb = (rng.randint(60, 240),) * 3
        elif lot < 0.92:
            rgb = (rng.randint(150, 255), rng.randint(150, 255), rng.randint(150, 255))
        else:
            rgb = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        other = _shaded(rgb, rng) if rng.random() < 0.25 else rgb
        if all(_far(rgb, colour, least) and _far(other, colour, least) for colour in colours):
            grain = rng.uniform(4, 22) if rng.random() < 0.12 else 0.0
            return Ground(rgb=rgb, other=other, angle=rng.uniform(0, 2 * math.pi), grain=grain)


def _shaded(rgb: Colour, rng: random.Random) -> Colour:
    shift = rng.uniform(-60, 60)
    red, green, blue = (min(255, max(0, round(v + shift))) for v in rgb)
    return red, green, blue


def _far(a: Colour, b: Colour, least: float) -> bool:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) > least


def sampled_names(num: int, rng: random.Random) -> list[tuple[str, str]]:
    """Colours and shapes, each pair once; often with a colour or a shape in common."""
    found: list[tuple[str, str]] = []
    while len(found) < num:
        colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
        if found and rng.random() < 0.25:
            near = rng.choice(found)
            colour, shape = (near[0], shape) if rng.random() < 0.5 else (colour, near[1])
        if (colour, shape) not in found:
            found.append((colour, shape))
    return found


def sampled_scene(
    rng: random.Random,
    *,
    num: int | None = None,
    names: list[tuple[str, str]] | None = None,
    size: tuple[int, int] | None = None,
    wide: float = 1.0,
) -> Scene:
    """A picture with `num` shapes (else 1 to 3), at most one in each of the nine cells.

    `wide` scales how far a shape may be from its cell's middle.
    """
    width, height = size or sampled_size(rng)
    num = rng.choice((1, 1, 2, 2, 3)) if num is None else num
    names = sampled_names(num, rng) if names is None else names
    alone = num == 1 and rng.random() < 0.4
    cells = [4] if alone else sorted(rng.sample(range(9), num))
    radii = (0.22, 0.42) if alone else (0.115, 0.21) if num == 1 else (0.115, 0.175)
    rgbs = [sampled_rgb(colour, rng) for colour, _ in names]
    for _ in range(_TRIES):
        places = [_place(cell, 0.085 * wide if not alone else 0.06, rng) for cell in cells]
        sizes = [rng.uniform(*radii) for _ in cells]
        if _apart(places, sizes, width, height):
            break
        radii = (radii[0], max(radii[0], radii[1] * 0.98))
    things = tuple(
        _thing(name, rgb, place, radius, rng)
        for name, rgb, place, radius in zip(names, rgbs, places, sizes, strict=True)
    )
    ground = sampled_ground(rgbs, rng)
    return Scene(width=width, height=height, ground=ground, things=things)


def _thing(
    name: tuple[str, str],
    rgb: Colour,
    place: tuple[float, float],
    radius: float,
    rng: random.Random,
) -> Thing:
    return Thing(
        colour=name[0],
        shape=name[1],
        rgb=rgb,
        x=place[0],
        y=place[1],
        radius=radius,
        turn=rng.uniform(-0.25, 0.25) if rng.random() < 0.5 else 0.0,
        stretch=rng.uniform(0.87, 1.15) if rng.random() < 0.3 else 1.0,
        inner=rng.uniform(0.36, 0.5),
    )


def _place(cell: int, far: float, rng: random.Random) -> tuple[float, float]:
    x, y = (cell % 3 * 2 + 1) / 6, (cell // 3 * 2 + 1) / 6
    return x + rng.uniform(-far, far), y + rng.uniform(-far, far)


def _apart(places: list[tuple[float, float]], radii: list[float], width: int, height: int) -> bool:
    """No two overlap."""
    short = min(width, height)
    for i, (x, y) in enumerate(places):
        for j, (other_x, other_y) in enumerate(places[:i]):
            far = math.hypot((x - other_x) * width, (y - other_y) * height)
            if far < (radii[i] + radii[j]) * short * 1.05:
                return False
    return True


def sampled_crowd(rng: random.Random) -> Scene:
    """Up to nine shapes, for the tower alone: more to see in as many patches."""
    num = rng.choice((1, 2, 3, 5, 6, 7, 8, 9))
    palette = rng.sample(COLOURS, 3)
    names = [(rng.choice(palette), rng.choice(SHAPES)) for _ in range(num)]
    return sampled_scene(rng, num=num, names=names, wide=1.0 if num < 5 else 0.4)


def sampled_motion(rng: random.Random, size: tuple[int, int] | None = None) -> Motion:
    """Eight frames of one shape that moves straight, or of one that does not."""
    width, height = size or sampled_size(rng, most=480)
    name = sampled_names(1, rng)[0]
    rgb, direction = sampled_rgb(name[0], rng), rng.choice((*list(DIRECTIONS) * 3, None))
    radius = rng.uniform(0.13, 0.23)
    short = min(width, height)
    reach = radius * short / width, radius * short / height  # fractions of both sides
    x, y = rng.uniform(reach[0], 1 - reach[0]), rng.uniform(reach[1], 1 - reach[1])
    step = (0.0, 0.0)
    if direction:
        along = 0 if DIRECTIONS[direction][0] else 1
        sign, span = DIRECTIONS[direction][along], 1 - 2 * reach[along]
        way = rng.uniform(0.45, 1.0) * span
        start = reach[along] + rng.uniform(0, span - way)
        start = start if sign > 0 else 1 - start
        x, y = (start, y) if along == 0 else (x, start)
        pace = sign * way / (NUM_FRAMES - 1)
        step = (pace, 0.0) if along == 0 else (0.0, pace)
    thing, ground = _thing(name, rgb, (x, y), radius, rng), sampled_ground([rgb], rng)
    return Motion(
        frames=tuple(_moved(thing, ground, step, i, width, height) for i in range(NUM_FRAMES)),
        direction=direction,
    )


def _moved(
    thing: Thing, ground: Ground, step: tuple[float, float], time: int, width: int, height: int
) -> Scene:
    from dataclasses import replace

    there = replace(thing, x=thing.x + step[0] * time, y=thing.y + step[1] * time)
    return Scene(width=width, height=height, ground=ground, things=(there,))
