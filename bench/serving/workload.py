"""What is asked: prompts of exactly so many tokens and pictures, no two of them alike.

Prompts differ from their first words on, so that no cache of prefixes or rows answers for the
model; a prefix cache is measured by bench/second_turn.py.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from epd.models.spec import read_checkpoint
from epd.prompt import ItemPart, Message, PromptBuilder, Source, TextPart
from epd.types import Modality

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
FILLING = (" a", " b", " 1", ".", " the", "!")
"""Short endings, one of which adds one token to almost any text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One kind of request. `prompt_tokens` counts the whole rendered text, not the pictures."""

    prompt_tokens: int
    images: int
    max_tokens: int
    picture: tuple[int, int] = (448, 448)
    seed: str = "0"


class Prompts:
    """Makes chats for one checkpoint, counting tokens as its gateway does."""

    def __init__(self, folder: Path) -> None:
        self._builder = PromptBuilder(read_checkpoint(folder))

    def messages(self, workload: Workload, number: int) -> list[dict[str, Any]]:
        """The `number`-th chat of a workload, as a client sends it."""
        rng = random.Random(f"{workload.seed} {number}")
        text = self.text(rng, workload.prompt_tokens, workload.images)
        pictures = [
            {"type": "image_url", "image_url": {"url": picture(workload.picture, rng)}}
            for _ in range(workload.images)
        ]
        return [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]

    def text(self, rng: random.Random, num_tokens: int, images: int = 0) -> str:
        """Words that make the rendered prompt exactly `num_tokens` long. ValueError: too few."""
        least = self._count("", images)
        if num_tokens < least:
            raise ValueError(f"the chat template alone takes {least} tokens, not {num_tokens}")
        text = ""
        for word in _words(rng):
            if self._count(f"{text} {word}", images) > num_tokens:
                break
            text = f"{text} {word}"
        while (missing := num_tokens - self._count(text, images)) > 0:
            text = self._longer(text, missing, num_tokens, images)
        return text

    def _longer(self, text: str, missing: int, num_tokens: int, images: int) -> str:
        counts = {end: self._count(text + end, images) for end in FILLING}
        fitting = [end for end in FILLING if num_tokens - missing < counts[end] <= num_tokens]
        if not fitting:
            raise ValueError(f"cannot make a prompt of exactly {num_tokens} tokens")
        return text + fitting[0]

    def _count(self, text: str, images: int) -> int:
        item = ItemPart(modality=Modality.IMAGE, source=Source(url="http://epd.invalid/"))
        content: tuple[TextPart | ItemPart, ...] = (*[item] * images, TextPart(text=text))
        return self._builder.build([Message(role="user", content=content)]).num_text_tokens


def _words(rng: random.Random) -> Iterator[str]:
    while True:
        yield "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 3)))


def picture(size: tuple[int, int], rng: random.Random) -> str:
    """A data: URL of a smooth random picture, as JPEG."""
    coarse = np.frombuffer(rng.randbytes(8 * 8 * 3), dtype=np.uint8).reshape(8, 8, 3)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
