"""Conversations to train on: media, and many questions about them, each as if it were the first."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from demo import questions, scenes, sounds
from demo.facts import Motion, Scene
from demo.questions import Turn
from demo.sounds import Heard

MOST_TURNS = 9

SYSTEM = (
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "Answer briefly.",
    "You are a friendly assistant. Answer in one sentence.",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "Be precise.",
)

Medium = Scene | Motion | Heard


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """`opening`: a first turn that all others follow; else each of `turns` is a first one."""

    kind: str
    media: tuple[Medium, ...]
    turns: tuple[Turn, ...]
    system: str | None = None
    opening: Turn | None = None
    text_first: bool = False


PICTURE_KEYS = (
    *("shape", "colour", "colour", "colour", "colour", "shape of", "count", "count", "how many"),
    *("where", "where", "where", "where", "at", "at", "at", "is", "is", "is", "is"),
    *("describe", "describe", "describe", "foreign", "no sound"),
)
FAIR_KEYS = (
    *("shape", "colour", "colour", "shape of", "count", "count", "where", "where", "where"),
    *("at", "at", "how many", "how many", "how many", "is", "is", "is", "is", "is", "is"),
    *("describe", "describe", "describe", "describe", "foreign", "no sound"),
)
"""More of what takes several things together."""

CLIP_KEYS = (
    *("direction", "direction", "direction", "event", "event", "event", "moves", "moves"),
    *("moving shape", "moving colour", "foreign"),
)
SOUND_KEYS = (
    *(
        "beeps",
        "beeps",
        "beeps",
        "pitch",
        "pitch",
        "hear",
        "hear",
        "sweep",
        "foreign",
        "no picture",
    ),
)
TWO_KEYS = (
    *("same shape", "same shape", "same colour", "same colour", "same", "compare", "compare"),
    "one of two",
)


def conversation(kind: str, rng: random.Random, *, fair: bool = False) -> Conversation:
    """One of `kind`: picture, clip, sound, two, both or text. `fair`: no verdict is commoner."""
    media, ask = _fair_picture(rng) if fair and kind == "picture" else _ASKERS[kind](rng)
    turns = _turns(ask, rng)
    opening = turns.pop(0) if rng.random() < 0.25 else None
    return Conversation(
        kind=kind,
        media=media,
        turns=tuple(turns),
        opening=opening,
        text_first=opening is not None and rng.random() < 0.5,
        system=rng.choice(SYSTEM) if rng.random() < 0.12 else None,
    )


def _turns(ask: Callable[[], Turn | None], rng: random.Random) -> list[Turn]:
    found: list[Turn] = []
    while len(found) < MOST_TURNS:
        turn = ask()
        if turn is not None:
            found.append(turn)
    return found


_Asker = tuple[tuple[Medium, ...], Callable[[], Turn | None]]


def _picture(rng: random.Random) -> _Asker:
    num = 0 if rng.random() < 0.03 else None
    scene = scenes.sampled_scene(rng, num=num)
    return (scene,), lambda: questions.of_picture(rng.choice(PICTURE_KEYS), scene, rng)


def _fair_picture(rng: random.Random) -> _Asker:
    """Two and three shapes more often than one, which leaves nothing to choose from."""
    scene = scenes.sampled_scene(rng, num=rng.choice((1, 2, 2, 3, 3)))
    return (scene,), lambda: questions.fairly(rng.choice(FAIR_KEYS), scene, rng)


def _clip(rng: random.Random) -> _Asker:
    motion = scenes.sampled_motion(rng)
    return (motion,), lambda: questions.of_clip(rng.choice(CLIP_KEYS), motion, rng)


def _sound(rng: random.Random) -> _Asker:
    heard = sounds.sampled_heard(rng)
    return (heard,), lambda: questions.of_sound(rng.choice(SOUND_KEYS), heard, rng)


def _two(rng: random.Random) -> _Asker:
    first, second = two_scenes(rng)
    return (first, second), lambda: questions.of_two(rng.choice(TWO_KEYS), first, second, rng)


def two_scenes(rng: random.Random) -> tuple[Scene, Scene]:
    """One shape each; the same shape half of the time, the same colour too."""
    first = scenes.sampled_scene(rng, num=1)
    colour, shape = first.things[0].name
    other_colour, other_shape = scenes.sampled_names(1, rng)[0]
    name = (
        colour if rng.random() < 0.4 else other_colour,
        shape if rng.random() < 0.35 else other_shape,
    )
    return first, scenes.sampled_scene(rng, num=1, names=[name])


def _both(rng: random.Random) -> _Asker:
    scene, heard = scenes.sampled_scene(rng), sounds.sampled_heard(rng)

    def ask() -> Turn | None:
        lot = rng.random()
        if lot < 0.4:
            return questions.of_both(scene, heard, rng)
        if lot < 0.7:
            return questions.of_sound(rng.choice(("beeps", "pitch", "hear")), heard, rng)
        return questions.of_picture(rng.choice(PICTURE_KEYS[:-2]), scene, rng)

    return (scene, heard), ask


def _text(rng: random.Random) -> _Asker:
    return (), lambda: questions.of_nothing(rng)


_ASKERS: dict[str, Callable[[random.Random], _Asker]] = {
    "picture": _picture,
    "clip": _clip,
    "sound": _sound,
    "two": _two,
    "both": _both,
    "text": _text,
}
