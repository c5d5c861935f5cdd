"""Prompts and pictures, counted by the product's own tokenizer."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path

import pytest
from PIL import Image

from bench.serving.workload import Prompts, Workload, picture
from epd.models.spec import read_checkpoint
from epd.prompt import ItemPart, Message, PromptBuilder, Source, TextPart
from epd.types import Modality
from tests.checkpoints import build


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen2_5_vl", tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="module")
def prompts(path: Path) -> Prompts:
    return Prompts(path)


@pytest.mark.parametrize("num_tokens", [40, 41, 42, 43, 535])
@pytest.mark.parametrize("images", [0, 2])
def test_a_prompt_has_exactly_as_many_tokens_as_asked_for(
    path: Path, prompts: Prompts, num_tokens: int, images: int
) -> None:
    text = prompts.text(random.Random(num_tokens), num_tokens, images)
    item = ItemPart(modality=Modality.IMAGE, source=Source(url="http://epd.invalid/"))
    message = Message(role="user", content=(*[item] * images, TextPart(text=text)))
    assert PromptBuilder(read_checkpoint(path)).build([message]).num_text_tokens == num_tokens


def test_a_prompt_shorter_than_the_template_is_refused(prompts: Prompts) -> None:
    with pytest.raises(ValueError, match="the chat template alone takes"):
        prompts.text(random.Random(0), 3)


def test_no_two_requests_are_alike_and_each_can_be_made_again(prompts: Prompts) -> None:
    workload = Workload(prompt_tokens=60, images=1, max_tokens=1)
    first, second = prompts.messages(workload, 0), prompts.messages(workload, 1)
    assert first[0]["content"][0] != second[0]["content"][0]
    assert first[0]["content"][1] != second[0]["content"][1]
    assert prompts.messages(workload, 0) == first


def test_a_picture_has_the_size_asked_for() -> None:
    url = picture((448, 224), random.Random(0))
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert (image.size, image.format) == ((448, 224), "JPEG")
