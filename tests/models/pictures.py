"""Pictures and prompts for tests: every size and every seed another picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from epd.media.decoded import Picture
from epd.models.adapter import Asked
from epd.models.towers import Prepared, Towers
from epd.types import ItemKey, Modality, Prompt, PromptItem
from tests.reference import Reference

SIZES = ((60, 60), (300, 100), (127, 333), (400, 500), (28, 28), (1000, 30))


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with noise on top, different for every seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (7 + seed) + c) * np.cos(y / (5 + c)) for c in range(3)]
    noise = rng.integers(-40, 40, (height, width, 3))
    pixels = np.stack(waves, axis=-1) * 80 + 128 + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def pictures(num: int) -> list[Image.Image]:
    """Up to six, all of different sizes."""
    return [picture(*SIZES[i], seed=i) for i in range(num)]


def messages(num: int) -> list[dict[str, Any]]:
    """One user turn with `num` pictures between words."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "Compare what you see: "}]
    for i in range(num):
        content += [{"type": "image"}, {"type": "text", "text": f" and number {i},"}]
    return [{"role": "user", "content": content}]


def prepare(towers: Towers, image: Image.Image) -> Prepared:
    return towers.prepare(Picture(image=image), asked(Modality.IMAGE, towers.dtype_name))


def asked(modality: Modality, dtype: str = "float32") -> Asked:
    """Nothing in particular."""
    return Asked(modality=modality, content_key=b"key", text_before="", dtype=dtype)


def prompt(reference: Reference, towers: Towers, num: int) -> tuple[Prompt, list[Prepared]]:
    """The prompt of `messages(num)`, resolved with the layouts of `pictures(num)`."""
    prepared = [prepare(towers, image) for image in pictures(num)]
    texts = reference.render(messages(num)).split(reference.processor.image_token)
    ids = [reference.processor.tokenizer(text, add_special_tokens=False) for text in texts]
    items = tuple(
        PromptItem(
            item=ItemKey(request_id="r", index=i, attempt=0), encoder="encode-0", layout=one.layout
        )
        for i, one in enumerate(prepared)
    )
    return Prompt(text=tuple(tuple(one.input_ids) for one in ids), items=items), prepared
