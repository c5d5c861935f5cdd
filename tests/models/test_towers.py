"""The encode half gives the rows and the layout that the whole Hugging Face model gives."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from epd.errors import BadMedia, ConfigError, InternalError, UnsupportedModel
from epd.media.decoded import Picture
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.towers import Prepared, Towers, load_towers
from epd.types import ItemLayout, Modality
from tests.models.pictures import SIZES, asked, messages, picture, prepare
from tests.reference import Reference

MANY = [*SIZES, (1, 5), (5, 3), (3, 100), (1, 1)]
"""Among them pictures a few pixels high, which libraries mistake for colour channels."""


@pytest.mark.parametrize("size", MANY, ids=str)
def test_layout_and_rows_equal_the_whole_model(
    size: tuple[int, int], reference: Reference, towers: Towers
) -> None:
    image = picture(*size)
    found = reference.inputs(messages(1), [image])
    item = prepare(towers, image)
    with torch.inference_mode():
        features = reference.model.get_image_features(
            found["pixel_values"], found["image_grid_thw"]
        )
    (rows,) = towers.encode([item])
    levels = [features.pooler_output, *getattr(features, "deepstack_features", [])]
    assert torch.equal(rows, torch.cat([level[0] for level in levels], dim=1))
    ids = found["input_ids"][0]
    assert list(item.layout.token_ids) == ids[ids == reference.processor.image_token_id].tolist()
    assert item.layout.row_spans == ((0, len(rows)),)
    assert (item.layout.width, item.layout.dtype) == (rows.shape[1], "float32")
    assert item.layout.content_key == b"key"


def test_rows_do_not_depend_on_the_rest_of_the_batch(towers: Towers) -> None:
    """Up to the rounding of matrix products, whose order may change with their height."""
    assert towers.batch_invariant
    items = [prepare(towers, picture(*size, seed=i)) for i, size in enumerate(MANY)]
    alone = [towers.encode([item])[0] for item in items]
    for batch in (range(len(items)), reversed(range(len(items))), (3, 0), (4, 4, 4)):
        order = list(batch)
        for i, rows in zip(order, towers.encode([items[i] for i in order]), strict=True):
            torch.testing.assert_close(rows, alone[i], rtol=1e-5, atol=1e-5)


def test_an_empty_batch_is_no_forward(towers: Towers) -> None:
    assert towers.encode([]) == []


def test_other_modes_become_rgb(towers: Towers) -> None:
    grey = picture(80, 60).convert("L")
    expected = prepare(towers, grey.convert("RGB"))
    assert torch.equal(
        prepare(towers, grey).inputs["pixel_values"], expected.inputs["pixel_values"]
    )


@pytest.mark.parametrize("size", [(2000, 5), (5, 2000)])
def test_a_picture_that_is_too_long_is_the_clients_fault(
    size: tuple[int, int], towers: Towers
) -> None:
    with pytest.raises(BadMedia, match="aspect ratio"):
        prepare(towers, Image.new("RGB", size))


def test_many_threads_prepare_at_once(towers: Towers) -> None:
    images = [picture(*SIZES[i % 6], seed=i) for i in range(24)]
    expected = [prepare(towers, image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: prepare(towers, image), images))
    for one, other in zip(found, expected, strict=True):
        assert one.layout == other.layout
        assert torch.equal(one.inputs["pixel_values"], other.inputs["pixel_values"])


def test_preprocessing_settings_come_from_older_files_too(path: Path, tmp_path: Path) -> None:
    """Published checkpoints have preprocessor_config.json with min_pixels and max_pixels."""
    folder = tmp_path / "older"
    shutil.copytree(path, folder)
    settings = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    del settings["size"]
    token = (settings["patch_size"] * settings["merge_size"]) ** 2
    settings |= {"min_pixels": 4 * token, "max_pixels": 16 * token}
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    towers = _load(read_checkpoint(folder))
    assert prepare(towers, picture(500, 500)).layout.num_rows == 16


@pytest.mark.parametrize("name", ["patch_size", "temporal_patch_size", "merge_size"])
def test_a_processor_for_another_tower_is_refused(name: str, path: Path, tmp_path: Path) -> None:
    """Its patches would be cut again, silently, into wrong ones."""
    folder = shutil.copytree(path, tmp_path / "other")
    settings = json.loads((folder / "processor_config.json").read_text())
    wanted = settings["image_processor"][name]
    settings["image_processor"][name] = 4
    (folder / "processor_config.json").write_text(json.dumps(settings))
    refusal = f"{name} of the processor is 4, of the tower {wanted}"
    with pytest.raises(UnsupportedModel, match=refusal):
        _load(read_checkpoint(folder))


def test_another_modality_is_refused_by_name(checkpoint: Checkpoint, family: str) -> None:
    with pytest.raises(ConfigError, match=f"{family} cannot encode audio; it can encode image"):
        load_towers(
            checkpoint,
            modalities=(Modality.IMAGE, Modality.AUDIO),
            device="cpu",
            dtype="float32",
        )


def test_an_item_of_another_workers_modality_is_our_fault(towers: Towers) -> None:
    with pytest.raises(InternalError, match="wrong worker"):
        towers.prepare(Picture(image=picture(9, 9)), asked(Modality.AUDIO))


def test_rows_that_break_the_layouts_promise_are_our_fault(towers: Towers) -> None:
    item = prepare(towers, picture(60, 60))
    layout = ItemLayout(
        modality=Modality.IMAGE,
        token_ids=(7,),
        row_spans=((0, 1),),
        width=64,
        dtype="float32",
        content_key=b"",
    )
    broken = Prepared(layout=layout, inputs=item.inputs, patches=item.patches)
    with pytest.raises(InternalError, match="promised"):
        towers.encode([broken])


def test_lower_precision_stays_near_fp32(checkpoint: Checkpoint, towers: Towers) -> None:
    lower = load_towers(checkpoint, modalities=(Modality.IMAGE,), device="cpu", dtype="bfloat16")
    image = picture(100, 80)
    item = prepare(lower, image)
    (rows,) = lower.encode([item])
    assert rows.dtype == torch.bfloat16 and item.layout.dtype == "bfloat16"
    (expected,) = towers.encode([prepare(towers, image)])
    similar = torch.nn.functional.cosine_similarity(rows.float(), expected, dim=1)
    assert similar.min() > 0.98


def _load(checkpoint: Checkpoint) -> Towers:
    return load_towers(checkpoint, modalities=(Modality.IMAGE,), device="cpu", dtype="float32")


def test_rows_in_bfloat16_are_as_good_as_hugging_faces(
    checkpoint: Checkpoint, reference: Reference, towers: Towers
) -> None:
    """Their matrix products are ours: neither may be further from float32 than the other."""
    narrow = load_towers(checkpoint, modalities=(Modality.IMAGE,), device="cpu", dtype="bfloat16")
    item = prepare(towers, picture(300, 100))
    pixels = item.inputs["pixel_values"].bfloat16()
    inputs = {**item.inputs, "pixel_values": pixels}
    (exact,) = towers.encode([replace(item, inputs={**inputs, "pixel_values": pixels.float()})])
    model = deepcopy(reference.model).bfloat16()
    with torch.inference_mode():
        features = model.get_image_features(pixels, item.inputs["image_grid_thw"])
    levels = [features.pooler_output, *getattr(features, "deepstack_features", [])]
    theirs = torch.cat([level[0] for level in levels], dim=1).float()
    layout = replace(item.layout, dtype="bfloat16")
    (ours,) = narrow.encode([replace(item, layout=layout, inputs=inputs)])
    assert (ours.float() - exact).norm() < 1.2 * (theirs - exact).norm()
