"""Pictures and videos through every Qwen-VL family's halves equal the whole Hugging Face model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epd.media.decoded import Clip, Picture
from epd.models.language import LanguageModel
from epd.models.spec import Checkpoint
from epd.models.towers import Prepared, Towers, load_towers
from epd.types import Modality, Prompt
from tests.models.clips import CLIPS, REQUESTS, shown
from tests.models.generate import greedy, merged
from tests.models.pictures import asked
from tests.models.qwen_requests import placed, prepare, prompt_of, resolved
from tests.models.whole import Whole, doubled

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")

pytestmark = pytest.mark.parametrize("family", QWEN, indirect=True, scope="session")

NUM_TOKENS = 8

REVERSED = replace(CLIPS["slow"], frames=CLIPS["slow"].frames[::-1])


@pytest.mark.parametrize("name", CLIPS)
def test_ids_and_rows_of_a_clip_equal_the_whole_model(
    name: str, whole: Whole, towers: Towers
) -> None:
    item = prepare(towers, CLIPS[name])
    found = whole.alone(doubled(CLIPS[name]))
    (rows,) = towers.encode([item])
    assert torch.equal(rows, whole.rows(found, "video"))
    ids = found["input_ids"][0].tolist()
    assert list(item.layout.token_ids) == ids
    taken = [i for start, end in item.layout.row_spans for i in range(start, end)]
    video = whole.processor.video_token_id
    assert taken == [i for i, token in enumerate(ids) if token == video]
    assert (item.layout.width, item.layout.modality) == (rows.shape[1], Modality.VIDEO)
    assert item.patches == len(found["pixel_values_videos"])


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_equals_the_whole_model(
    name: str, whole: Whole, towers: Towers, language: LanguageModel
) -> None:
    """Ids, positions and greedy tokens."""
    prompt, items = resolved(whole, towers, REQUESTS[name])
    found = whole.inputs(REQUESTS[name])
    assert prompt.token_ids() == found["input_ids"][0].tolist()
    positions, delta = language.positions(prompt)
    expected, expected_delta = whole.positions(found)
    assert torch.equal(positions, expected) and delta == expected_delta
    inputs = merged(language, prompt, towers.encode(items))
    new = greedy(language, inputs, positions, delta, NUM_TOKENS)
    assert new == whole.generate(found, NUM_TOKENS)


SIDE = st.integers(1, 5)
GRIDS = st.lists(
    st.tuples(st.booleans(), st.integers(1, 9), SIDE, SIDE, st.floats(0, 90)), max_size=5
)


@given(grids=GRIDS, lengths=st.lists(st.integers(1, 30), min_size=6, max_size=6))
@settings(max_examples=40)
def test_positions_of_any_mixed_prompt_equal_get_rope_index(
    grids: list[tuple[bool, int, int, int, float]],
    lengths: list[int],
    whole: Whole,
    towers: Towers,
    language: LanguageModel,
) -> None:
    """Of pictures and videos of any sizes and times, in any order."""
    items = [sized(towers, *grid) for grid in grids]
    layouts = [item.layout for item in items]
    prompt = Prompt(
        text=tuple((7,) * length for length in lengths[: len(grids) + 1]),
        items=placed(layouts),
    )
    ids = torch.tensor([prompt.token_ids()])
    kinds = whole.processor.create_mm_token_type_ids(ids.tolist())
    found = {"input_ids": ids, "mm_token_type_ids": torch.tensor(kinds)}
    for name, is_video in (("image", False), ("video", True)):
        chosen = [(t, 2 * h, 2 * w) for v, t, h, w, _ in grids if v is is_video]
        if chosen:
            found[f"{name}_grid_thw"] = torch.tensor(chosen)
            if not is_video:
                found["image_grid_thw"][:, 0] = 1
    if "video_grid_thw" in found:
        found["second_per_grid_ts"] = torch.tensor([s for v, *_, s in grids if v])
    positions, delta = language.positions(prompt)
    expected, expected_delta = whole.positions(found)
    assert torch.equal(positions, expected) and delta == expected_delta


def sized(
    towers: Towers, is_video: bool, frames: int, height: int, width: int, seconds: float
) -> Prepared:
    """An item of that many rows, each all zeros, as a client would send it."""
    name, frames = ("video", frames) if is_video else ("image", 1)
    width_of_row = prepare(towers, shown(60, 60)).layout.width
    tensors = {
        f"{name}_embeds": np.zeros((frames * height * width, width_of_row), np.float32),
        f"{name}_grid_thw": np.array([frames, 2 * height, 2 * width]),
        "second_per_grid_ts": np.array([seconds]),
        "timestamps": np.arange(frames) * seconds,
    }
    return towers.from_embeds(tensors, asked(Modality(name)))


def test_a_resumed_prompt_stands_where_it_stood(
    whole: Whole, towers: Towers, language: LanguageModel
) -> None:
    """Tokens that were generated before the interruption end its last text."""
    prompt, _ = resolved(whole, towers, REQUESTS["a long video"])
    positions, delta = language.positions(prompt)
    num = positions.shape[1]
    longer = replace(prompt, text=(*prompt.text[:-1], (*prompt.text[-1], 5, 6, 7)))
    again, same = language.positions(longer)
    generated = torch.arange(num, num + 3).expand(3, -1) + delta
    assert torch.equal(again, torch.cat([positions, generated], dim=1)) and same == delta


def test_rows_do_not_depend_on_the_rest_of_the_batch(towers: Towers) -> None:
    """Videos among videos, and among pictures. Up to the rounding of matrix products."""
    assert towers.batch_invariant
    media: list[Picture | Clip] = [*CLIPS.values(), shown(60, 60), shown(300, 40)]
    items = [prepare(towers, one) for one in media]
    alone = [towers.encode([item])[0] for item in items]
    num = len(items)
    for order in (range(num), range(num - 1, -1, -1), (2, num - 1), (1, 1, 1), (0, num - 2, 4)):
        for i, rows in zip(order, towers.encode([items[i] for i in order]), strict=True):
            torch.testing.assert_close(rows, alone[i], rtol=1e-5, atol=1e-5)


def test_a_worker_for_videos_only_has_the_same_tower(
    towers: Towers, checkpoint: Checkpoint
) -> None:
    alone = load_towers(checkpoint, modalities=(Modality.VIDEO,), device="cpu", dtype="float32")
    assert alone.modalities == (Modality.VIDEO,)
    item = prepare(alone, CLIPS["even"])
    assert torch.equal(alone.encode([item])[0], towers.encode([item])[0])


# ---- negative controls


def answer(
    language: LanguageModel,
    prompt: Prompt,
    rows: list[torch.Tensor],
    places: tuple[torch.Tensor, float] | None = None,
) -> list[int]:
    """Greedy tokens, at other positions than the prompt's if asked."""
    positions, delta = places or language.positions(prompt)
    return greedy(language, merged(language, prompt, rows), positions, delta, NUM_TOKENS)


def test_wrong_rows_and_wrong_positions_of_a_video_change_the_tokens(
    family: str, whole: Whole, towers: Towers, language: LanguageModel
) -> None:
    parts = REQUESTS["a long video"]
    prompt, items = resolved(whole, towers, parts)
    rows = towers.encode(items)
    right = answer(language, prompt, rows)
    hidden = language.hidden_size
    positions, delta = language.positions(prompt)
    wrong = {
        "zeroed": [torch.zeros_like(one) for one in rows],
        "shifted": [one.roll(1, dims=0) for one in rows],
        "of another video": towers.encode([prepare(towers, REVERSED)]),
    }
    if "qwen3" in family:
        wrong["no deepstack"] = [torch.cat([r[:, :hidden], 0 * r[:, hidden:]], 1) for r in rows]
    for name, others in wrong.items():
        assert answer(language, prompt, others) != right, name
    flat = torch.arange(positions.shape[1]).expand(3, -1)
    assert answer(language, prompt, rows, (flat, 0)) != right
    assert answer(language, prompt, rows, (positions, delta + 40)) != right


def test_wrong_times_change_the_tokens(
    family: str, whole: Whole, towers: Towers, language: LanguageModel
) -> None:
    """The same frames at another rate. Qwen2-VL alone does not look at the time."""
    parts = REQUESTS["a long video"]
    prompt, items = resolved(whole, towers, parts)
    rows = towers.encode(items)
    video = parts[0]
    assert isinstance(video, Clip)
    faster = prepare(towers, replace(video, info=replace(video.info, fps=video.info.fps * 9)))
    other = prompt_of(whole, parts, [faster.layout])
    same = answer(language, other, towers.encode([faster])) == answer(language, prompt, rows)
    assert same == (family == "qwen2_vl")
