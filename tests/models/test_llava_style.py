"""The LLaVA-style families, through both halves: ids, rows and answers of the whole model."""

from __future__ import annotations

from pathlib import Path

import pytest

from epd.models.adapter import Prepared
from epd.types import MediaOptions
from tests.checkpoints import build
from tests.models import halves
from tests.models.halves import Halves, resolve
from tests.models.llava_chats import Chat, Part, Whole, clip, modality, picture_part

WITH_VIDEO = ("internvl", "llava_onevision")
FAMILIES = ("internvl", "llava", "llava_next", "llava_onevision")

CHATS: dict[str, list[Part]] = {
    "text": ["What is there to say?"],
    "picture": ["Look: ", picture_part(300, 100), "what is it?"],
    "pictures": [
        picture_part(60, 60),
        "and 1",
        picture_part(127, 333, 1),
        " or:",
        picture_part(400, 500, 2),
        picture_part(28, 28, 3),
        "?",
    ],
    "video": ["See ", clip(3), "."],
    "videos": [clip(2), "then 7", clip(4, 60, 100, 9), "a", clip(1, seed=20), ":"],
    "mixed": ["a", picture_part(90, 70, 4), "b:", clip(3, seed=30), "1", picture_part(40, 90, 5)],
}

CASES = [
    (family, name)
    for family in FAMILIES
    for name in CHATS
    if family in WITH_VIDEO or name in ("text", "picture", "pictures")
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def path(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(family, tmp_path_factory.mktemp("checkpoints") / family)


@pytest.fixture(scope="module")
def whole(path: Path) -> Whole:
    return Whole(path)


@pytest.fixture(scope="module")
def both(path: Path) -> Halves:
    return halves.load(path)


def prepared(both: Halves, chat: Chat) -> list[Prepared]:
    kinds = [modality(item) for item in chat.items]
    return [
        both.prepare(
            kind,
            item,
            text_before=before,
            options=MediaOptions(siblings=kinds.count(kind)),
        )
        for kind, item, before in zip(kinds, chat.items, chat.before, strict=True)
    ]


@pytest.mark.parametrize(("family", "name"), CASES, indirect=["family"], scope="module")
def test_ids_and_tokens_equal_the_whole_model(name: str, whole: Whole, both: Halves) -> None:
    inputs = whole.inputs(CHATS[name])
    chat = whole.chat(CHATS[name])
    items = prepared(both, chat)
    asked = resolve(chat.text, items)
    assert asked.token_ids() == inputs["input_ids"][0].tolist()
    assert both.answer(asked, both.towers.encode(items), 8) == whole.answer(inputs, 8)
