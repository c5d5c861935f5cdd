"""Everything that Qwen-Omni's thinkers take, through their halves, equals Hugging Face's model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epd.errors import InternalError
from epd.media.decoded import Clip, Picture, Sound
from epd.models.language import LanguageModel
from epd.models.spec import Checkpoint
from epd.models.towers import Towers, load_towers
from epd.types import MediaOptions, Modality
from tests.models.clips import CLIPS, shown
from tests.models.generate import greedy, merged
from tests.models.in_parts import (
    NUM_TOKENS,
    prepare,
    resolved,
)
from tests.models.sounds import LOUD, MIXED, REQUESTS, SOUNDS, sound
from tests.models.thinker import Thinker, has_sound

OMNI = ("qwen2_5_omni", "qwen3_omni_moe")

pytestmark = [
    pytest.mark.parametrize("family", OMNI, indirect=True, scope="session"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # in transformers' processors
]

# ---- equality


@pytest.mark.parametrize("name", SOUNDS)
def test_ids_and_rows_of_a_sound_equal_the_whole_model(
    name: str, thinker: Thinker, towers: Towers, language: LanguageModel
) -> None:
    item = prepare(towers, SOUNDS[name])
    found = thinker.alone(SOUNDS[name])
    (rows,) = towers.encode([item])
    assert torch.equal(rows[:, : language.hidden_size], thinker.rows(found, "audio"))
    assert not rows[:, language.hidden_size :].any()
    assert list(item.layout.token_ids) == found["input_ids"][0].tolist()
    assert item.layout.row_spans == ((0, len(rows)),) and item.layout.positions == b""


@pytest.mark.parametrize("name", CLIPS)
def test_ids_and_rows_of_a_silent_video_equal_the_whole_model(
    name: str, thinker: Thinker, towers: Towers
) -> None:
    """With the flag and without."""
    item = prepare(towers, CLIPS[name])
    found = thinker.alone(CLIPS[name])
    (rows,) = towers.encode([item])
    assert torch.equal(rows, thinker.rows(found, "video"))
    assert list(item.layout.token_ids) == found["input_ids"][0].tolist()
    assert prepare(towers, CLIPS[name], MediaOptions()).layout == item.layout
    no_samples = replace(CLIPS[name], sound=sound(0))
    assert prepare(towers, no_samples).layout == item.layout


@pytest.mark.parametrize("name", LOUD)
def test_ids_and_rows_of_a_video_with_sound_equal_the_whole_model(
    name: str, thinker: Thinker, towers: Towers
) -> None:
    item = prepare(towers, LOUD[name])
    found = thinker.alone(LOUD[name])
    ids = found["input_ids"][0].tolist()
    assert list(item.layout.token_ids) == ids
    (rows,) = towers.encode([item])
    kinds = torch.tensor(ids[1:-1])
    assert item.layout.row_spans == ((1, len(ids) - 1),)
    hidden = thinker.model.config.text_config.hidden_size
    seen, heard = thinker.rows(found, "video"), thinker.rows(found, "audio")
    assert torch.equal(rows[kinds == thinker.processor.video_token_id], seen)
    assert torch.equal(rows[kinds == thinker.processor.audio_token_id][:, :hidden], heard)
    assert len(rows) == len(seen) + len(heard)


@pytest.mark.parametrize("name", LOUD)
def test_places_of_a_video_with_sound_equal_get_rope_index(
    name: str, thinker: Thinker, towers: Towers, language: LanguageModel
) -> None:
    parts = ("Well ", LOUD[name], " so")
    prompt, _ = resolved(thinker, towers, parts)
    expected = thinker.positions(thinker.inputs(parts), sound=True)
    positions, _ = language.positions(prompt)
    assert positions.shape == expected.shape
    torch.testing.assert_close(positions, expected.double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("num", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_any_video_with_any_sound_is_interleaved_as_transformers_does(
    num: int, thinker: Thinker, checkpoint: Checkpoint
) -> None:
    """Ids as by the processor, positions as by the model, which count in different precisions."""

    @given(data=st.data())
    @settings(max_examples=num)
    def check(data: st.DataObject) -> None:
        check_interleaved(data, thinker, checkpoint.adapter())

    check()


def check_interleaved(data: st.DataObject, thinker: Thinker, adapter: Any) -> None:
    frames, height, width = (data.draw(st.integers(1, most)) for most in (7, 3, 9))
    num_frames = data.draw(st.integers(3, 800))
    rate = data.draw(st.sampled_from([0.3, 0.5, 1, 1.3, 1.93, 2, 2.6, 4, 6.5, 13, 23.976, 30]))
    num_sound = adapter.num_sound_rows(num_frames)
    expansion, _ = adapter.expand_both((frames, height, width), 2 / rate, num_sound)
    ids = list(expansion.token_ids)
    assert ids == thinker.interleaved((frames, height, width), 2 / rate, num_sound)
    places = thinker.places((frames, height, width), 2 / rate, num_frames, ids)
    expected = torch.from_numpy(np.asarray(expansion.places, dtype=np.float64))
    torch.testing.assert_close(expected, places[:, 1:-1] - 1, rtol=0, atol=1e-4)
    assert expansion.advance == pytest.approx(float(places[0, -1]) - 1, abs=1e-4)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_equals_the_whole_model(
    name: str, thinker: Thinker, towers: Towers, language: LanguageModel
) -> None:
    """Ids, positions and greedy tokens."""
    parts = REQUESTS[name]
    prompt, items = resolved(thinker, towers, parts)
    found = thinker.inputs(parts)
    assert prompt.token_ids() == found["input_ids"][0].tolist()
    positions, delta = language.positions(prompt)
    expected = thinker.positions(found, sound=has_sound(parts))
    torch.testing.assert_close(positions, expected.double(), rtol=0, atol=1e-4)
    inputs = merged(language, prompt, towers.encode(items))
    new = greedy(language, inputs, positions, delta, NUM_TOKENS)
    assert new == thinker.generate(found, NUM_TOKENS, use_audio_in_video=has_sound(parts))


@pytest.mark.parametrize("name", MIXED)
def test_videos_with_and_without_sound_in_one_request(
    name: str, thinker: Thinker, towers: Towers, language: LanguageModel
) -> None:
    """transformers has one flag for all of them: positions are composed from items alone."""
    parts = MIXED[name]
    prompt, items = resolved(thinker, towers, parts)
    found = thinker.inputs(parts)
    assert prompt.token_ids() == found["input_ids"][0].tolist()
    positions, delta = language.positions(prompt)
    composed = thinker.composed(parts)
    torch.testing.assert_close(positions, composed, rtol=0, atol=1e-4)
    inputs = merged(language, prompt, towers.encode(items))
    new = greedy(language, inputs, positions, delta, NUM_TOKENS)
    text = torch.arange(composed.shape[1])[None]
    places = torch.cat([text, composed.float()])[:, None]
    assert new == thinker.generate(found, NUM_TOKENS, position_ids=places)


def test_composed_positions_are_the_models_own_where_it_has_them(thinker: Thinker) -> None:
    for name, parts in REQUESTS.items():
        own = thinker.positions(thinker.inputs(parts), sound=has_sound(parts)).double()
        torch.testing.assert_close(thinker.composed(parts), own, rtol=0, atol=1e-4, msg=name)


# ---- alone and together


def test_rows_do_not_depend_on_the_rest_of_the_batch(towers: Towers) -> None:
    """Up to the rounding of matrix products."""
    media: list[Picture | Clip | Sound] = [
        *SOUNDS.values(),
        LOUD["as long"],
        LOUD["wider than its sound"],
        CLIPS["odd"],
        shown(60, 60),
        LOUD["far apart"],
    ]
    items = [prepare(towers, one) for one in media]
    alone = [towers.encode([item])[0] for item in items]
    num = len(items)
    for order in (range(num), range(num - 1, -1, -1), (3, 0, 4, 9), (4, 3), (8, 9, 2), (3, 3)):
        for i, rows in zip(order, towers.encode([items[i] for i in order]), strict=True):
            torch.testing.assert_close(rows, alone[i], rtol=1e-5, atol=1e-5)


def test_together_short_sounds_would_have_other_rows(
    family: str, towers: Towers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen3-Omni's convolutions reach over what pads a sound: so it is not padded."""
    items = [prepare(towers, SOUNDS[name]) for name in ("short", "two seconds")]
    right, _ = towers.encode(items)
    together = "epd.models.families.qwen3_omni_moe.Qwen3OmniMoe.together"
    monkeypatch.setattr(together, lambda self, lengths: [list(range(len(lengths)))])
    wrong, _ = towers.encode(items)
    assert torch.allclose(wrong, right, atol=1e-3) == (family == "qwen2_5_omni")


@pytest.mark.parametrize(
    "modalities", [(Modality.AUDIO,), (Modality.VIDEO,), (Modality.IMAGE, Modality.AUDIO)]
)
def test_a_worker_has_the_towers_of_its_modalities_only(
    modalities: tuple[Modality, ...], checkpoint: Checkpoint, towers: Towers
) -> None:
    some = load_towers(checkpoint, modalities=modalities, device="cpu", dtype="float32")
    assert some.modalities == modalities and some.weight_bytes <= towers.weight_bytes
    examples: dict[Modality, Picture | Clip | Sound] = {
        Modality.IMAGE: shown(60, 60),
        Modality.VIDEO: CLIPS["even"],
        Modality.AUDIO: SOUNDS["odd"],
    }
    for modality in modalities:
        item = prepare(some, examples[modality])
        assert torch.equal(some.encode([item])[0], towers.encode([item])[0])
    if modalities == (Modality.VIDEO,):
        with pytest.raises(InternalError, match="cannot hear"):
            prepare(some, LOUD["as long"])
