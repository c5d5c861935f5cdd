"""Ready-made embeddings become the item that the tower's rows would be; all else is a 400."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from epd.errors import BadRequest
from epd.media.decoded import Clip, Picture, Tensors
from epd.models.spec import Checkpoint
from epd.models.towers import Prepared, Towers
from epd.types import Modality
from tests.models.clips import CLIPS, clip, shown
from tests.models.pictures import asked
from tests.models.qwen_requests import prepare
from tests.models.test_qwen_vl import QWEN
from tests.models.whole import Whole

pytestmark = pytest.mark.parametrize("family", QWEN, indirect=True, scope="session")

ODD = CLIPS["odd"]


def sent(family: str, towers: Towers, item: Prepared, media: Picture | Clip) -> Tensors:
    """What a client with the same tower would send."""
    name = item.layout.modality.value
    tensors: Tensors = {
        f"{name}_embeds": towers.encode([item])[0].numpy(),
        f"{name}_grid_thw": item.inputs[f"{name}_grid_thw"].numpy(),
    }
    if isinstance(media, Clip) and family == "qwen2_5_vl":
        tensors["second_per_grid_ts"] = np.array([2 / (5 / 31 * 29.97)])
    if isinstance(media, Clip) and family.startswith("qwen3"):
        i, fps = media.indices, 29.97
        middles = [(i[0] + i[1]) / 2, (i[2] + i[3]) / 2, (i[4] + i[4]) / 2]
        tensors["timestamps"] = np.array([middle / fps for middle in middles])
    return tensors


def taken(towers: Towers, tensors: Tensors, modality: Modality) -> Prepared:
    return towers.from_embeds(tensors, asked(modality))


@pytest.mark.parametrize("media", [shown(100, 60), ODD], ids=["image", "video"])
def test_embeddings_stand_for_the_item(
    media: Picture | Clip, family: str, checkpoint: Checkpoint, towers: Towers
) -> None:
    item = prepare(towers, media)
    tensors = sent(family, towers, item, media)
    modality = item.layout.modality
    assert set(tensors) == {field.name for field in checkpoint.spec.embeds[modality]}
    found = taken(towers, tensors, modality)
    assert found.layout == item.layout and not found.inputs
    assert torch.equal(towers.encode([found])[0], towers.encode([item])[0])
    both = towers.encode([item, found])
    torch.testing.assert_close(both[0], both[1], rtol=1e-5, atol=1e-5)


def test_a_flat_grid_and_other_dtypes_are_read(family: str, towers: Towers) -> None:
    item = prepare(towers, ODD)
    tensors = sent(family, towers, item, ODD)
    tensors["video_grid_thw"] = tensors["video_grid_thw"][0].astype(np.int32)
    tensors["video_embeds"] = tensors["video_embeds"].astype(np.float16)
    found = taken(towers, tensors, Modality.VIDEO)
    assert found.layout == item.layout
    assert found.rows is not None and found.rows.dtype == torch.float32


def _cut(name: str, by: int = 1) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: tensors[name][:-by]}


def _value(name: str, value: Any) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: np.asarray(value)}


WRONG_VIDEOS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "a row too few": (_cut("video_embeds"), "video_embeds has the shape"),
    "narrow rows": (
        lambda tensors: tensors | {"video_embeds": tensors["video_embeds"][:, :-1]},
        "video_embeds has the shape",
    ),
    "one dimension": (
        lambda tensors: tensors | {"video_embeds": tensors["video_embeds"].reshape(-1)},
        "video_embeds has the shape",
    ),
    "whole numbers": (
        lambda tensors: tensors | {"video_embeds": tensors["video_embeds"].astype(np.int64)},
        "not floating point",
    ),
    "not a number": (
        lambda tensors: tensors | {"video_embeds": tensors["video_embeds"] * np.nan},
        "no finite numbers",
    ),
    "no grid": (
        lambda tensors: {k: v for k, v in tensors.items() if k != "video_grid_thw"},
        "video_grid_thw is missing",
    ),
    "another grid": (_value("video_grid_thw", [[3, 4, 6]]), "its grid says"),
    "a grid of parts": (_value("video_grid_thw", [[3, 3, 6]]), "multiples of 2"),
    "a negative grid": (_value("video_grid_thw", [[-3, -4, 6]]), "multiples of 2"),
    "a huge grid": (_value("video_grid_thw", [[2**62, 2**62, 2**62]]), "its grid says"),
    "two grids": (_value("video_grid_thw", [[3, 4, 6], [3, 4, 6]]), "three whole numbers"),
    "a broken grid": (_value("video_grid_thw", [[3.0, 4.0, 6.0]]), "three whole numbers"),
}


@pytest.mark.parametrize("wrong", WRONG_VIDEOS)
def test_a_wrong_field_is_named(wrong: str, family: str, towers: Towers) -> None:
    change, words = WRONG_VIDEOS[wrong]
    tensors = sent(family, towers, prepare(towers, ODD), ODD)
    with pytest.raises(BadRequest, match=words) as caught:
        taken(towers, change(tensors), Modality.VIDEO)
    assert caught.value.param in ("video_embeds", "video_grid_thw")


def test_wrong_times_are_named(family: str, towers: Towers) -> None:
    tensors = sent(family, towers, prepare(towers, ODD), ODD)
    times = {"qwen2_vl": "", "qwen2_5_vl": "second_per_grid_ts"}.get(family, "timestamps")
    if not times:
        return
    num = len(tensors[times])
    missing = {name: value for name, value in tensors.items() if name != times}
    with pytest.raises(BadRequest, match=f"{times} is missing"):
        taken(towers, missing, Modality.VIDEO)
    for values in ([1.0] * (num + 1), [], ["x"] * num):
        with pytest.raises(BadRequest, match=f"{times} is not {num} numbers"):
            taken(towers, tensors | {times: np.asarray(values)}, Modality.VIDEO)
    for value in (-1.0, np.inf, np.nan):
        with pytest.raises(BadRequest, match=f"{times} has times"):
            taken(towers, tensors | {times: np.full(num, value)}, Modality.VIDEO)
    with pytest.raises(BadRequest, match="too far apart"):
        taken(towers, tensors | {times: np.full(num, 1e300)}, Modality.VIDEO)


def test_a_picture_of_several_frames_is_refused(family: str, towers: Towers) -> None:
    item = prepare(towers, ODD)
    tensors = sent(family, towers, item, ODD)
    renamed = {name.replace("video", "image"): value for name, value in tensors.items()}
    with pytest.raises(BadRequest, match="a picture is one frame"):
        taken(towers, renamed, Modality.IMAGE)


def test_text_before_a_video_that_merges_is_taken_back(
    family: str, whole: Whole, towers: Towers
) -> None:
    """Templates put a special token in front; a prompt of the client's own may not."""
    before = "it is "
    item = prepare(towers, clip(60, 60, 2), text_before=before)
    kept = whole.ids(before)
    kept = kept[: len(kept) - item.layout.replaces_left]
    text = whole.processor.tokenizer.decode(item.layout.token_ids)
    assert [*kept, *item.layout.token_ids] == whole.ids(before + text[text.find("<") :])
    assert (item.layout.replaces_left > 0) == family.startswith("qwen3")
