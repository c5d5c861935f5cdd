"""Ready-made embeddings: the server reads from a part what its sender had in memory."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import torch

from epd.config import MediaConfig
from epd.errors import BadRequest
from epd.llm.items import read_items
from epd.media.tensors import read_tensors

ROWS = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))


def parts(kind: str, value: Any) -> list[dict[str, Any]]:
    return read_items({kind: value}, {}).parts


def tensors(part: dict[str, Any]) -> dict[str, Any]:
    """The fields of an embeds part, as the server reads them."""
    found: dict[str, Any] = {}
    for name, text in part[part["type"]].items():
        found |= read_tensors(name, base64.b64decode(text), MediaConfig().image)
    return found


@pytest.mark.parametrize(
    "given",
    [ROWS, ROWS[None], [ROWS], [ROWS[None]], {"image_embeds": ROWS}, ROWS.numpy()],
    ids=["rows", "one item", "list", "list of one item", "object", "array"],
)
def test_rows_of_one_picture_arrive_whatever_holds_them(given: Any) -> None:
    [part] = parts("image", given)
    assert part["type"] == "image_embeds"
    assert np.array_equal(tensors(part)["image_embeds"], ROWS)


def test_a_batch_of_rows_is_a_part_per_item() -> None:
    batch = ROWS.reshape(3, 4, 8)
    found = [tensors(part)["image_embeds"].tolist() for part in parts("image", batch)]
    assert found == batch.tolist()


def test_bfloat16_loses_nothing() -> None:
    rows = ROWS.bfloat16()
    [part] = parts("audio", rows)
    assert np.array_equal(tensors(part)["audio_embeds"], rows.float())


def test_rows_behind_one_another_are_cut_by_their_grids() -> None:
    """As Qwen-VL has it: the rows of all pictures, and a grid of patches for each."""
    grids = torch.tensor([[1, 4, 4], [1, 4, 8]])
    found = parts("image", {"image_embeds": ROWS, "image_grid_thw": grids})
    fields = [tensors(part) for part in found]
    assert [one["image_grid_thw"].tolist() for one in fields] == grids.tolist()
    assert np.array_equal(fields[0]["image_embeds"], ROWS[:4])
    assert np.array_equal(fields[1]["image_embeds"], ROWS[4:])


def test_facts_may_be_lists() -> None:
    given = {"image_embeds": ROWS.reshape(2, 6, 8), "image_sizes": [(30, 40), (50, 60)]}
    found = [tensors(part)["image_sizes"].tolist() for part in parts("image", given)]
    assert found == [[30, 40], [50, 60]]


def test_times_belong_to_their_one_video() -> None:
    given = {
        "video_embeds": ROWS,
        "video_grid_thw": torch.tensor([[3, 4, 4]]),
        "timestamps": [0.0, 1.0, 2.0],
    }
    [part] = parts("video", given)
    found = tensors(part)
    assert found["video_grid_thw"].tolist() == [3, 4, 4]
    assert found["timestamps"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"image_grid_thw": [[1, 2, 2]]}, "has no image_embeds"),
        ({"image_embeds": "rows"}, "is a str, not floating point"),
        ({"image_embeds": torch.zeros(3, 4, dtype=torch.int64)}, "int64"),
        ({"image_embeds": ROWS, "image_grid_thw": "1,2,2"}, "is no tensor of numbers"),
        ({"image_embeds": ROWS, "image_grid_thw": [[1, 4, 4], [1, 5, 4]]}, "does not fit"),
        (
            {"image_embeds": ROWS.reshape(3, 4, 8), "image_sizes": [(3, 4), (5, 6)]},
            "there are 3 items",
        ),
        ({"image_embeds": ROWS, "image_sizes": [[3], [4, 5]]}, "different shapes"),
    ],
)
def test_fields_that_do_not_fit_are_refused_by_name(given: Any, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        parts("image", given)
