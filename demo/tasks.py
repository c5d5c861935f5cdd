"""What the model is asked when it is judged: media and wordings drawn from lots of their own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from demo import chatter, questions, scenes, sounds
from demo.conversations import two_scenes
from demo.drawing import filled, render, strange
from demo.facts import Motion, Scene
from demo.questions import Turn
from demo.seeds import lots
from demo.sounds import Heard

Renderer = Callable[[Scene, random.Random], Image.Image]

RENDERERS: dict[str, Renderer] = {
    "Pillow": lambda scene, rng: filled.draw(scene),
    "Matplotlib": strange.plotted,
    "OpenCV, smooth as SVG": strange.vector,
    "imitated photographs": strange.photograph,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """`media`: pairs of kind and pictures, frames [8, height, width, 3], or samples at 16 kHz."""

    media: tuple[tuple[str, Any], ...]
    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`kind` and `key` as in training; `least` is the share of answers that must be right."""

    name: str
    kind: str
    key: str
    least: float
    group: str = "held-out media"
    unseen: bool = False
    renderer: str | None = None
    size: tuple[int, int] | None = None

    def prompts(self, num: int) -> Iterator[Prompt]:
        """The first `num`, the same every time."""
        for i in range(num):
            rng = lots("judged", self.group, self.name, i)
            found = None
            while found is None:
                found = _ASKERS[self.kind](self, rng)
            yield found


def _picture(task: Task, rng: random.Random) -> Prompt | None:
    num = 1 if task.key == "shape" else None
    scene = scenes.sampled_scene(rng, num=num, size=task.size)
    turn = questions.fairly(task.key, scene, rng, unseen=task.unseen)
    return _prompt(turn, ("image", _drawn(task, scene, rng))) if turn else None


def _drawn(task: Task, scene: Scene, rng: random.Random) -> Image.Image:
    if task.renderer is None:
        return render.drawn(scene, rng)
    plain = replace(scene, ground=replace(scene.ground, other=scene.ground.rgb))
    return RENDERERS[task.renderer](plain, rng)


def _prompt(turn: Turn, *media: tuple[str, Any]) -> Prompt:
    return Prompt(media=media, question=turn.question, answer=turn.answer)


def _clip(task: Task, rng: random.Random) -> Prompt | None:
    motion = scenes.sampled_motion(rng)
    turn = questions.of_clip(task.key, motion, rng, unseen=task.unseen)
    return _prompt(turn, ("video", _frames(motion))) if turn else None


def _frames(motion: Motion) -> Any:
    return np.stack([np.asarray(filled.draw(frame, times=2)) for frame in motion.frames])


def _sound(task: Task, rng: random.Random) -> Prompt | None:
    heard = sounds.sampled_heard(rng)
    fitting = {"beeps": ("beeps",), "pitch": ("beeps", "tone"), "sweep": ("sweep",)}
    if heard.kind not in fitting.get(task.key, (heard.kind,)):
        return None
    turn = questions.of_sound(task.key, heard, rng, unseen=task.unseen)
    return _prompt(turn, ("audio", sounds.sound(heard, rng))) if turn else None


def _two(task: Task, rng: random.Random) -> Prompt:
    both = two_scenes(rng)
    turn = questions.of_two(task.key, *both, rng, unseen=task.unseen)
    return _prompt(turn, *(("image", _drawn(task, scene, rng)) for scene in both))


def _both(task: Task, rng: random.Random) -> Prompt:
    scene, heard = scenes.sampled_scene(rng), sounds.sampled_heard(rng)
    turn = questions.of_both(scene, heard, rng, unseen=task.unseen)
    return _prompt(turn, ("image", _drawn(task, scene, rng)), ("audio", _samples(heard, rng)))


def _samples(heard: Heard, rng: random.Random) -> Any:
    return sounds.sound(heard, rng)


def _text(task: Task, rng: random.Random) -> Prompt:
    if task.key == "foreign":
        return _prompt(Turn(question=chatter.foreign(rng, media=False), answer=chatter.ONLY))
    return _prompt(questions.of_nothing(rng))


_ASKERS: dict[str, Callable[[Task, random.Random], Prompt | None]] = {
    "picture": _picture,
    "clip": _clip,
    "sound": _sound,
    "two": _two,
    "both": _both,
    "text": _text,
}

SURE, SOUND, ELSEWHERE = 0.97, 0.90, 0.85

MAIN = (
    Task(name="shape", kind="picture", key="shape", least=SURE),
    Task(name="colour", kind="picture", key="colour", least=SURE),
    Task(name="count", kind="picture", key="count", least=SURE),
    Task(name="position: where is ...?", kind="picture", key="where", least=SOUND),
    Task(name="position: what is at ...?", kind="picture", key="at", least=SOUND),
    Task(name="is there a ...?", kind="picture", key="is", least=SOUND),
    Task(name="description of 1 to 3 shapes", kind="picture", key="describe", least=SOUND),
    Task(name="shape of the red one", kind="picture", key="shape of", least=SOUND),
    Task(name="how many circles", kind="picture", key="how many", least=SOUND),
    Task(name="picture, but no answer", kind="picture", key="foreign", least=SOUND),
    Task(name="direction", kind="clip", key="direction", least=SURE),
    Task(name="what happens", kind="clip", key="event", least=SOUND),
    Task(name="does it move", kind="clip", key="moves", least=SOUND),
    Task(name="moving shape", kind="clip", key="moving shape", least=SOUND),
    Task(name="moving colour", kind="clip", key="moving colour", least=SOUND),
    Task(name="beeps", kind="sound", key="beeps", least=SURE),
    Task(name="pitch", kind="sound", key="pitch", least=SURE),
    Task(name="what is heard", kind="sound", key="hear", least=SOUND),
    Task(name="rising or falling", kind="sound", key="sweep", least=SOUND),
    Task(name="two: same shape", kind="two", key="same shape", least=SOUND),
    Task(name="two: same colour", kind="two", key="same colour", least=SOUND),
    Task(name="two: the same", kind="two", key="same", least=SOUND),
    Task(name="two: compared", kind="two", key="compare", least=SOUND),
    Task(name="two: first or second", kind="two", key="one of two", least=SOUND),
    Task(name="picture and sound", kind="both", key="both", least=SOUND),
    Task(name="talk", kind="text", key="talk", least=SOUND),
    Task(name="talk, but no answer", kind="text", key="foreign", least=SOUND),
)
_MEDIA = ("picture", "clip", "sound", "two", "both")
WORDINGS = tuple(
    replace(task, group="unseen wordings", least=ELSEWHERE, unseen=True)
    for task in MAIN
    if task.kind in _MEDIA and task.key != "foreign"
)
STRANGE = tuple(
    replace(
        task,
        name=f"{renderer}: {task.name}",
        group="other renderers",
        least=ELSEWHERE,
        renderer=renderer,
    )
    for renderer in RENDERERS
    for task in MAIN
    if task.key in ("shape", "colour", "count", "describe")
)
SIZES = tuple(
    replace(MAIN[6], name=f"description at {size[0]} x {size[1]}", group="sizes", size=size)
    for size in (
        (112, 112),
        (224, 224),
        (512, 512),
        (1024, 1024),
        (640, 480),
        (480, 640),
        (1024, 512),
        (320, 640),
    )
)
TASKS = (*MAIN, *WORDINGS, *STRANGE, *SIZES)
