"""Draws lots for sounds and makes them: beeps, a long tone, one that rises or falls, nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.facts import NUMBERS, plural

RATE = 16_000
LONGEST_S = 5.0
HIGH, LOW = (900.0, 2600.0), (150.0, 380.0)
PITCHES = ("low", "high", "rising", "falling")

Wave = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """`kind`: beeps, tone, sweep or silence. `pitch`: high, low, rising or falling."""

    kind: str
    num: int = 1
    pitch: str = ""

    @property
    def phrase(self) -> str:
        if self.kind == "beeps":
            return f"{NUMBERS[self.num]} {self.pitch} {plural('beep', self.num)}"
        if self.kind == "silence":
            return "nothing"
        return f"one {'long ' if self.kind == 'tone' else ''}{self.pitch} tone"


def sampled_heard(rng: random.Random) -> Heard:
    lot, pitch = rng.random(), rng.choice(("high", "low"))
    if lot < 0.64:
        return Heard(kind="beeps", num=rng.randint(1, 5), pitch=pitch)
    if lot < 0.79:
        return Heard(kind="tone", pitch=pitch)
    if lot < 0.95:
        return Heard(kind="sweep", pitch=rng.choice(("rising", "falling")))
    return Heard(kind="silence", num=0)


def sound(heard: Heard, rng: random.Random) -> Wave:
    """[samples] at RATE, at most LONGEST_S long."""
    return marked(heard, rng)[0]


def marked(heard: Heard, rng: random.Random) -> tuple[Wave, NDArray[np.int64]]:
    """A sound, and of each sample which tone it is in: 1 for the first, 0 for none."""
    quiet = 1.0 if rng.random() < 0.2 else 0.4
    parts = [_pause(0.02, quiet, rng), *_voiced(heard, rng), _pause(0.0, quiet, rng)]
    wave = np.concatenate(parts)[: int(LONGEST_S * RATE)]
    tones = np.cumsum([bool(part.any()) for part in parts])
    marks = [np.full(len(p), n if p.any() else 0) for p, n in zip(parts, tones, strict=True)]
    loudest = np.abs(wave).max()
    if loudest > 0:
        wave = wave / loudest * rng.uniform(0.08, 0.95)
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(len(wave))
    wave = wave + noise * 10 ** rng.uniform(-5, -2.3)
    return np.clip(wave, -1, 1).astype(np.float32), np.concatenate(marks)[: len(wave)]


def _voiced(heard: Heard, rng: random.Random) -> list[NDArray[np.float64]]:
    colour = rng.randrange(3)
    if heard.kind == "silence":
        return [np.zeros(int(rng.uniform(0.4, 2.5) * RATE))]
    if heard.kind == "sweep":
        ends = rng.uniform(200, 500), rng.uniform(1200, 2500)
        ends = ends if heard.pitch == "rising" else ends[::-1]
        return [tone(*ends, rng.uniform(0.8, 2.2), colour, rng)]
    pitch = rng.uniform(*(LOW if heard.pitch == "low" else HIGH))
    if heard.kind == "tone":
        return [tone(pitch, pitch, rng.uniform(0.8, 2.2), colour, rng)]
    length, pause, parts = rng.uniform(0.08, 0.28), rng.uniform(0.1, 0.33), []
    for i in range(heard.num):
        if i:
            parts.append(_pause(pause * 0.9, pause * 1.1, rng))
        parts.append(tone(pitch, pitch, length * rng.uniform(0.9, 1.1), colour, rng))
    return parts


def _pause(least: float, most: float, rng: random.Random) -> NDArray[np.float64]:
    return np.zeros(int(rng.uniform(least, max(least, most)) * RATE))


def tone(
    first: float, last: float, seconds: float, colour: int, rng: random.Random
) -> NDArray[np.float64]:
    """From one frequency to another; `colour` 0 is a pure tone, 1 has overtones, 2 is clipped."""
    time = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(first + (last - first) * time / seconds) / RATE
    wave = np.sin(phase)
    if colour == 1:
        wave = wave + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)
    elif colour == 2:
        wave = np.tanh(3 * wave)
    fade = min(len(wave) // 4, int(rng.uniform(0.005, 0.02) * RATE))
    edge = np.ones(len(wave))
    edge[:fade] = np.linspace(0, 1, fade)
    edge[len(wave) - fade :] = np.linspace(1, 0, fade)
    found: NDArray[np.float64] = wave * edge
    return found
