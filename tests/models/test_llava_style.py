"""The LLaVA-style families, through both halves: ids, rows and answers of the whole model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from epd.errors import BadMedia, BadRequest, UnsupportedModel
from epd.models.adapter import Prepared
from epd.models.sizes import num_weights
from epd.models.spec import read_checkpoint
from epd.models.towers import load_towers
from epd.types import MediaOptions, Modality
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


# Kept: pytest makes a module's fixtures again whenever tests of another family had a turn.
_whole = cache(Whole)
_both = cache(halves.load)


@pytest.fixture(scope="module")
def path(family: str, path_of: Callable[[str], Path]) -> Path:
    return path_of(family)


@pytest.fixture(scope="module")
def whole(path: Path) -> Whole:
    return _whole(path)


@pytest.fixture(scope="module")
def both(path: Path) -> Halves:
    return _both(path)


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


def test_wrong_rows_change_the_tokens(whole: Whole, both: Halves) -> None:
    """Negative controls: the equality above would not hold by accident."""
    chat = whole.chat(CHATS["pictures"])
    items = prepared(both, chat)
    asked, rows = resolve(chat.text, items), both.towers.encode(items)
    right = both.answer(asked, rows, 8)
    stale = rows[1][:1].expand(len(rows[0]), -1)
    wrong = {
        "no rows": [torch.zeros_like(rows[0]), *rows[1:]],
        "rows of another picture": [stale, *rows[1:]],
        "rows in another order": [one.flip(0) for one in rows],
    }
    for fault, found in wrong.items():
        assert both.answer(asked, found, 8) != right, fault


ODD = [(300, 100), (127, 333), (400, 500), (28, 28), (1, 1), (5, 3), (3, 5), (3, 100), (190, 1)]


@pytest.mark.parametrize("size", ODD, ids=str)
def test_rows_and_layout_of_any_picture_equal_hugging_faces(
    size: tuple[int, int], whole: Whole, both: Halves
) -> None:
    """Among them pictures a few pixels wide, which libraries mistake for colour channels."""
    part = picture_part(*size)
    inputs = whole.inputs([part])
    chat = whole.chat([part])
    (item,) = prepared(both, chat)
    assert resolve(chat.text, [item]).token_ids() == inputs["input_ids"][0].tolist()
    taken = {"pixel_values", "image_sizes", "batch_num_images"} & inputs.keys()
    with torch.inference_mode():
        features = whole.model.get_image_features(**{name: inputs[name] for name in taken})
    expected = features.pooler_output
    (rows,) = both.towers.encode([item])
    if isinstance(expected, torch.Tensor):
        expected = [expected.flatten(0, 1)]
    torch.testing.assert_close(rows, expected[0], rtol=1e-5, atol=1e-5)
    assert item.layout.width == 64 and item.layout.positions == b""


@pytest.mark.parametrize("size", [(2001, 10), (3, 700)])
def test_a_picture_that_is_too_long_is_the_clients_fault(
    size: tuple[int, int], both: Halves
) -> None:
    with pytest.raises(BadMedia, match="aspect ratio is over 200"):
        both.prepare(Modality.IMAGE, picture_part(*size))


def test_rows_do_not_depend_on_the_rest_of_the_batch(family: str, both: Halves) -> None:
    """Up to the rounding of matrix products, whose order may change with their height."""
    assert both.towers.batch_invariant
    items = [
        both.prepare(
            Modality.IMAGE, picture_part(*size, seed=i), options=MediaOptions(siblings=1 + i % 2)
        )
        for i, size in enumerate(ODD)
    ]
    if family in WITH_VIDEO:
        items += [both.prepare(Modality.VIDEO, clip(1 + i, seed=i)) for i in range(3)]
    alone = [both.towers.encode([item])[0] for item in items]
    for batch in (range(len(items)), reversed(range(len(items))), (3, 0), (4, 4, 4)):
        order = list(batch)
        for i, rows in zip(order, both.towers.encode([items[i] for i in order]), strict=True):
            torch.testing.assert_close(rows, alone[i], rtol=1e-5, atol=1e-5)


def test_rows_in_bfloat16_stay_near_float32(both: Halves) -> None:
    narrow = load_towers(
        both.checkpoint, modalities=(Modality.IMAGE,), device="cpu", dtype="bfloat16"
    )
    part = picture_part(120, 90)
    asked = replace(halves.asking(Modality.IMAGE), dtype="bfloat16")
    (rows,) = narrow.encode([narrow.prepare(part, asked)])
    (expected,) = both.towers.encode([both.prepare(Modality.IMAGE, part)])
    assert rows.dtype == torch.bfloat16
    similar = torch.nn.functional.cosine_similarity(rows.float(), expected, dim=1)
    assert similar.min() > 0.98


def test_weights_are_counted_without_torch(whole: Whole, both: Halves) -> None:
    counted = num_weights(both.checkpoint, both.checkpoint.spec.modalities)
    language = [*whole.model.model.language_model.parameters(), *whole.model.lm_head.parameters()]
    assert counted[1] == sum(weight.numel() for weight in language)
    assert sum(counted) == sum(weight.numel() for weight in whole.model.parameters())


def test_many_threads_prepare_at_once(family: str, both: Halves) -> None:
    def prepare(i: int) -> Prepared:
        if i % 3 == 0 and family in WITH_VIDEO:
            return both.prepare(Modality.VIDEO, clip(2, seed=i), text_before="a" * i)
        return both.prepare(Modality.IMAGE, picture_part(*ODD[i % len(ODD)], seed=i))

    expected = [prepare(i) for i in range(18)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(prepare, range(18)))
    for one, other in zip(found, expected, strict=True):
        assert one.layout == other.layout
        assert torch.equal(one.inputs["pixel_values"], other.inputs["pixel_values"])


# ---- ready-made embeddings


def test_ready_made_embeddings_become_what_their_picture_becomes(both: Halves) -> None:
    for part in (picture_part(300, 100), picture_part(40, 77)):
        item = both.prepare(Modality.IMAGE, part)
        (rows,) = both.towers.encode([item])
        tensors = {
            "image_embeds": rows.numpy(),
            "image_sizes": np.array([part.image.height, part.image.width]),
        }
        given = both.towers.from_embeds(tensors, halves.asking(Modality.IMAGE))
        assert given.layout == item.layout and given.rows is not None
        assert torch.equal(both.towers.encode([given])[0], rows)


@pytest.mark.parametrize("family", WITH_VIDEO, indirect=True, scope="module")
def test_ready_made_videos_become_what_their_video_becomes(both: Halves) -> None:
    item = both.prepare(Modality.VIDEO, clip(3), text_before="a: ")
    (rows,) = both.towers.encode([item])
    asked = halves.asking(Modality.VIDEO, text_before="a: ")
    given = both.towers.from_embeds({"video_embeds": rows[None].numpy()}, asked)
    assert given.layout == item.layout
    with pytest.raises(BadRequest, match=f"has {len(rows) - 1} rows"):
        both.towers.from_embeds({"video_embeds": rows[1:].numpy()}, asked)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_embeds": np.zeros((5, 64, 1), np.float32)}, "not floating point"),
        ({"image_embeds": np.zeros((25, 63), np.float32)}, "not floating point"),
        ({"image_embeds": np.zeros((0, 64), np.float32)}, "not floating point"),
        ({"image_embeds": np.zeros((25, 64), np.int64)}, "not floating point"),
        ({"image_embeds": np.full((25, 64), np.nan, np.float32)}, "no finite numbers"),
        ({"image_embeds": np.zeros((27, 64), np.float32)}, "has 27 rows"),
    ],
)
def test_embeddings_of_the_wrong_shape_are_refused(
    change: dict[str, NDArray[Any]], words: str, both: Halves
) -> None:
    tensors = {"image_sizes": np.array([56, 56]), **change}
    with pytest.raises(BadRequest, match=words):
        both.towers.from_embeds(tensors, halves.asking(Modality.IMAGE))


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"], indirect=True, scope="module")
@pytest.mark.parametrize("sizes", [[56], [56.0, 56.0], [0, 56], [-1, 5], [1, 1 << 40]], ids=str)
def test_sizes_that_no_picture_has_are_refused(sizes: list[Any], both: Halves) -> None:
    tensors = {"image_embeds": np.zeros((9, 64), np.float32), "image_sizes": np.array(sizes)}
    with pytest.raises(BadRequest, match="image_sizes is"):
        both.towers.from_embeds(tensors, halves.asking(Modality.IMAGE))


# ---- processors that do not fit


@pytest.mark.parametrize(
    ("family", "name", "value", "words"),
    [
        ("llava", "patch_size", 7, "patch_size of the processor is 7, of the tower 14"),
        ("llava_next", "vision_feature_select_strategy", "full", "is full, of the tower default"),
        ("llava_onevision", "vision_aspect_ratio", "anyres_max_9", "of the tower anyres_max_4"),
        ("llava_onevision", "num_image_tokens", 16, "is 16, of the tower 25"),
        ("internvl", "image_seq_length", 256, "is 256, of the tower 4"),
        ("llava", "crop_size", {"height": 28, "width": 28}, "image size of the processor is 28"),
        ("llava_next", "image_grid_pinpoints", [[56, 56]], "image_grid_pinpoints of the processor"),
    ],
    indirect=["family"],
    scope="module",
)
def test_a_processor_for_another_tower_is_refused(
    name: str, value: Any, words: str, path: Path, tmp_path: Path
) -> None:
    """Its tokens would not be as many as the tower's rows."""
    folder = Path(shutil.copytree(path, tmp_path / "other"))
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    where = settings["image_processor"] if name in settings["image_processor"] else settings
    assert name in where
    where[name] = value
    file.write_text(json.dumps(settings))
    with pytest.raises(UnsupportedModel, match=words):
        load_towers(
            read_checkpoint(folder), modalities=(Modality.IMAGE,), device="cpu", dtype="float32"
        )


def test_a_tower_of_another_kind_is_refused_by_name(both: Halves) -> None:
    """Pixtral, for example, has LLaVA's architecture and takes pictures in another way."""
    config = {**both.checkpoint.config, "vision_config": {"model_type": "pixtral"}}
    with pytest.raises(UnsupportedModel, match="tower of type pixtral; supported are"):
        replace(both.checkpoint, config=config).adapter()
