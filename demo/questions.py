"""Questions about what is shown or heard, with their answers: facts first, then the verdict."""

from __future__ import annotations

import random
from dataclasses import dataclass

from demo import chatter, wordings
from demo.facts import (
    CELLS,
    COLOURS,
    NUMBERS,
    SHAPES,
    Motion,
    Scene,
    Thing,
    in_cell,
    listed,
    plural,
    with_article,
)
from demo.sounds import Heard


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """`about`: parts of the answer, from its beginning, with one more than the cell of the thing
    that each is about, 0 where there is none."""

    question: str
    answer: str
    about: tuple[tuple[str, int], ...] = ()


def _about(thing: Thing, question: str, answer: str) -> Turn:
    return Turn(question=question, answer=answer, about=((answer, thing.cell + 1),))


def _listing(scene: Scene, question: str, answer: str) -> Turn:
    """An answer that begins with all things in order: what names each one is about it."""
    parts, rest = [], answer
    for thing in scene.things:
        before, name, rest = rest.partition(" " + named(thing))
        parts += [(before, 0), (name, thing.cell + 1)]
        place = " " + in_cell(thing.cell)
        if rest.startswith(place):
            parts.append((place, thing.cell + 1))
            rest = rest.removeprefix(place)
    return Turn(question=question, answer=answer, about=tuple(part for part in parts if part[0]))


def capital(words: str) -> str:
    return words[0].upper() + words[1:]


def named(thing: Thing) -> str:
    """As in "a red circle"."""
    return with_article(f"{thing.colour} {thing.shape}")


def seen(scene: Scene) -> str:
    """As in "I see a red circle and a blue star"."""
    return "I see " + (
        listed([named(thing) for thing in scene.things]) if scene.things else "no shape"
    )


def of_picture(key: str, scene: Scene, rng: random.Random, *, unseen: bool = False) -> Turn | None:
    """None where the question does not fit the picture."""
    if not scene.things and key not in ("count", "describe", "is", "at", "foreign", "no sound"):
        return None
    return _ABOUT_PICTURES[key](scene, rng, unseen)


def fairly(key: str, scene: Scene, rng: random.Random, *, unseen: bool = False) -> Turn | None:
    """As of_picture, but "is there a ...?" is asked as often for a yes as for a no."""
    if key != "is" or not scene.things:
        return of_picture(key, scene, rng, unseen=unseen)
    verdict, turn = rng.choice(("yes.", "no.")), None
    while turn is None or not turn.answer.endswith(verdict):
        turn = of_picture(key, scene, rng, unseen=unseen)
    return turn


def _shape(scene: Scene, rng: random.Random, unseen: bool) -> Turn | None:
    if len(scene.things) != 1:
        return None
    question = wordings.sampled("shape", rng, unseen=unseen)
    thing = scene.things[0]
    return _about(thing, question, f"It is {with_article(thing.shape)}.")


def _colour(scene: Scene, rng: random.Random, unseen: bool) -> Turn | None:
    thing = rng.choice(scene.things)
    if sum(other.shape == thing.shape for other in scene.things) > 1:
        return None
    key = "colour it" if len(scene.things) == 1 and rng.random() < 0.4 else "colour"
    question = wordings.sampled(key, rng, unseen=unseen, s=thing.shape)
    return _about(thing, question, f"The {thing.shape} is {thing.colour}.")


def _shape_of(scene: Scene, rng: random.Random, unseen: bool) -> Turn | None:
    thing = rng.choice(scene.things)
    if sum(other.colour == thing.colour for other in scene.things) > 1:
        return None
    question = wordings.sampled("shape of", rng, unseen=unseen, c=thing.colour)
    return _about(thing, question, f"The {thing.colour} shape is {with_article(thing.shape)}.")


def _there_are(num: int, word: str) -> str:
    return f"There {'is' if num == 1 else 'are'} {NUMBERS[num]} {plural(word, num)}."


def _count(scene: Scene, rng: random.Random, unseen: bool) -> Turn:
    question = wordings.sampled("count", rng, unseen=unseen)
    return Turn(question=question, answer=_there_are(len(scene.things), "shape"))


def _how_many(scene: Scene, rng: random.Random, unseen: bool) -> Turn:
    shape = rng.choice((*SHAPES, rng.choice(scene.things).shape))
    num = sum(thing.shape == shape for thing in scene.things)
    question = wordings.sampled("how many", rng, unseen=unseen, ss=plural(shape, 2))
    answer = f"{seen(scene)}, so {NUMBERS[num]} {plural(shape, num)}."
    return _listing(scene, question, answer)


def _where(scene: Scene, rng: random.Random, unseen: bool) -> Turn | None:
    thing = rng.choice(scene.things)
    if not unseen and rng.random() < 0.06:
        colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
        if (colour, shape) not in [other.name for other in scene.things]:
            question = wordings.sampled("where", rng, n=f"{colour} {shape}")
            return Turn(question=question, answer=f"{seen(scene)}, but no {colour} {shape}.")
    alone = sum(other.shape == thing.shape for other in scene.things) == 1
    name = thing.shape if alone and rng.random() < 0.35 else f"{thing.colour} {thing.shape}"
    question = wordings.sampled("where", rng, unseen=unseen, n=name)
    answer = f"The {thing.colour} {thing.shape} is {in_cell(thing.cell)}."
    return _about(thing, question, answer)


def _at(scene: Scene, rng: random.Random, unseen: bool) -> Turn:
    cell = rng.randrange(len(CELLS))
    if scene.things and rng.random() < 0.7:
        cell = rng.choice(scene.things).cell
    there = [thing for thing in scene.things if thing.cell == cell]
    question = wordings.sampled("at", rng, unseen=unseen, w=in_cell(cell))
    if not there:
        return Turn(question=question, answer=f"Nothing is {in_cell(cell)}.")
    return _about(there[0], question, f"{capital(named(there[0]))} is {in_cell(cell)}.")


def _is(scene: Scene, rng: random.Random, unseen: bool) -> Turn:
    """What is not there is often nearly there."""
    lot, thing = rng.random(), rng.choice(scene.things) if scene.things else None
    colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
    if thing and lot < 0.5:
        colour, shape = thing.colour, thing.shape
    elif thing and lot < 0.85:
        colour, shape = (thing.colour, shape) if rng.random() < 0.5 else (colour, thing.shape)
    kind = rng.random()
    if kind < 0.65:
        name, yes = f"{colour} {shape}", (colour, shape) in [t.name for t in scene.things]
    elif kind < 0.85:
        name, yes = shape, shape in [t.shape for t in scene.things]
    else:
        name, yes = f"{colour} shape", colour in [t.colour for t in scene.things]
    names = {"n": name, "an": with_article(name), "ns": name + "s"}
    question = wordings.sampled("is", rng, unseen=unseen, **names)
    return _listing(scene, question, f"{seen(scene)}, so {'yes' if yes else 'no'}.")


def _describe(scene: Scene, rng: random.Random, unseen: bool) -> Turn:
    question = wordings.sampled("describe", rng, unseen=unseen)
    return _listing(scene, question, described(scene) + ".")


def described(scene: Scene) -> str:
    parts = [f"{named(thing)} {in_cell(thing.cell)}" for thing in scene.things]
    return "I see " + (listed(parts) if parts else "no shape")


def _foreign(scene: Scene, rng: random.Random, unseen: bool) -> Turn:
    return Turn(question=chatter.foreign(rng, media=True), answer=chatter.ONLY)


def _no_sound(scene: Scene, rng: random.Random, unseen: bool) -> Turn:
    question = wordings.sampled(rng.choice(("beeps", "pitch", "hear")), rng)
    return Turn(question=question, answer=chatter.NO_SOUND)


_ABOUT_PICTURES = {
    "shape": _shape,
    "colour": _colour,
    "shape of": _shape_of,
    "count": _count,
    "how many": _how_many,
    "where": _where,
    "at": _at,
    "is": _is,
    "describe": _describe,
    "foreign": _foreign,
    "no sound": _no_sound,
}


def of_clip(key: str, motion: Motion, rng: random.Random, *, unseen: bool = False) -> Turn | None:
    thing, way = motion.thing, motion.direction
    if key == "foreign":
        return Turn(question=chatter.foreign(rng, media=True), answer=chatter.ONLY)
    goes = f"moves {way}" if way else "does not move"
    question = wordings.sampled(key, rng, unseen=unseen, s=thing.shape)
    if key == "moves":
        still = "still" in question
        return Turn(
            question=question,
            answer=f"The {thing.shape} {goes}, so {'yes' if bool(way) != still else 'no'}.",
        )
    answers = {
        "direction": f"The {thing.shape} {goes}.",
        "event": f"{capital(named(thing))} {goes}.",
        "moving shape": f"It is {with_article(thing.shape)}.",
        "moving colour": f"The {thing.shape} is {thing.colour}.",
    }
    return Turn(question=question, answer=answers[key])


def of_sound(key: str, heard: Heard, rng: random.Random, *, unseen: bool = False) -> Turn | None:
    if key == "foreign":
        return Turn(question=chatter.foreign(rng, media=False), answer=chatter.ONLY)
    if key == "no picture":
        asked = rng.choice(("shape", "colour it", "count", "describe"))
        question = wordings.sampled(asked, rng)
        shown = any(word in question for word in ("image", "picture", "photo", "shape", "colo"))
        return Turn(question=question, answer=chatter.NO_PICTURE) if shown else None
    question = wordings.sampled(key, rng, unseen=unseen)
    if key == "hear" or heard.kind == "silence" or (key == "beeps" and heard.kind != "beeps"):
        return Turn(question=question, answer=f"I hear {heard.phrase}.")
    if key == "beeps":
        return Turn(question=question, answer=_there_are(heard.num, "beep"))
    if key == "sweep" and heard.kind == "beeps":
        return None
    return Turn(question=question, answer=f"The tone is {heard.pitch}.")


def of_two(
    key: str, first: Scene, second: Scene, rng: random.Random, *, unseen: bool = False
) -> Turn:
    """About two pictures with one shape each."""
    a, b = first.things[0], second.things[0]
    place = rng.choice(("first", "second"))
    question = wordings.sampled(key, rng, unseen=unseen, o=place)
    if key == "one of two":
        return Turn(
            question=question, answer=f"The {place} shows {named(a if place == 'first' else b)}."
        )
    if key == "compare":
        return Turn(
            question=question, answer=f"The first shows {named(a)} and the second shows {named(b)}."
        )
    kind = {"same shape": "shape", "same colour": "colour"}.get(key)
    said = [
        named(thing)
        if kind is None
        else thing.colour
        if kind == "colour"
        else with_article(thing.shape)
        for thing in (a, b)
    ]
    different = "differ" in question
    verdict = "yes" if (said[0] == said[1]) != different else "no"
    answer = f"The first is {said[0]} and the second is {said[1]}, so {verdict}."
    return Turn(question=question, answer=answer)


def of_both(scene: Scene, heard: Heard, rng: random.Random, *, unseen: bool = False) -> Turn:
    """About a picture and a sound in one prompt."""
    question = wordings.sampled("both", rng, unseen=unseen)
    return _listing(scene, question, f"{described(scene)}, and I hear {heard.phrase}.")


def of_nothing(rng: random.Random) -> Turn:
    """Without a picture, clip or sound."""
    lot = rng.random()
    if lot < 0.45:
        questions, answer = rng.choice(chatter.TALK)
        return Turn(question=rng.choice(questions), answer=answer)
    if lot < 0.75:
        return Turn(question=chatter.foreign(rng, media=False), answer=chatter.ONLY)
    key = rng.choice(tuple(wordings.TRAINED))
    filled = {
        "s": rng.choice(SHAPES),
        "c": rng.choice(COLOURS),
        "o": rng.choice(("first", "second")),
    }
    name = f"{filled['c']} {filled['s']}"
    filled |= {"n": name, "an": with_article(name), "ns": name + "s", "ss": plural(filled["s"], 2)}
    question = wordings.sampled(
        key, rng, unseen=False, **{**filled, "w": in_cell(rng.randrange(9))}
    )
    vague = key in ("event", "describe", "hear", "compare", "pitch") and not any(
        word in question.lower()
        for word in ("image", "picture", "photo", "video", "clip", "sound", "see", "hear")
    )
    return Turn(question=question, answer=chatter.SEND) if not vague else of_nothing(rng)
