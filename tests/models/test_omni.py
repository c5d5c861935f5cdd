"""Everything that Qwen-Omni's thinkers take, through their halves, equals Hugging Face's model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epd.errors import BadMedia, BadRequest, InternalError
from epd.media.decoded import Clip, Picture, Sound, Tensors
from epd.models.language import LanguageModel
from epd.models.spec import Checkpoint
from epd.models.towers import Prepared, Towers, load_towers
from epd.types import ItemKey, ItemLayout, MediaOptions, Modality, Prompt, PromptItem
from tests.models.clips import CLIPS, shown
from tests.models.generate import greedy, merged
from tests.models.pictures import asked
from tests.models.sounds import LOUD, MIXED, RATE, REQUESTS, SOUNDS, Part, seconds, sound
from tests.models.thinker import Thinker, has_sound

OMNI = ("qwen2_5_omni", "qwen3_omni_moe")

pytestmark = [
    pytest.mark.parametrize("family", OMNI, indirect=True, scope="session"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # in transformers' processors
]

NUM_TOKENS = 8
MODALITIES = {Picture: Modality.IMAGE, Clip: Modality.VIDEO, Sound: Modality.AUDIO}
WITH_SOUND = MediaOptions(use_audio_in_video=True)


@pytest.fixture(scope="session")
def thinker(path: Path, checkpoint: Checkpoint) -> Thinker:
    return Thinker(path, checkpoint.architecture)


def prepare(
    towers: Towers, media: Picture | Clip | Sound, options: MediaOptions = WITH_SOUND
) -> Prepared:
    question = asked(MODALITIES[type(media)], towers.dtype_name)
    return towers.prepare(media, replace(question, options=options))


def resolved(
    thinker: Thinker, towers: Towers, parts: Sequence[Part]
) -> tuple[Prompt, list[Prepared]]:
    """The request as epd's language workers see it, and its items."""
    items = [prepare(towers, part) for part in parts if not isinstance(part, str)]
    return prompt_of(thinker, parts, [item.layout for item in items]), items


def prompt_of(thinker: Thinker, parts: Sequence[Part], layouts: Sequence[ItemLayout]) -> Prompt:
    return Prompt(
        text=tuple(tuple(thinker.ids(text)) for text in thinker.texts(parts)),
        items=tuple(
            PromptItem(item=ItemKey(request_id="r", index=i, attempt=0), encoder="e", layout=layout)
            for i, layout in enumerate(layouts)
        ),
    )


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


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_any_video_with_any_sound_is_interleaved_as_transformers_does(
    data: st.DataObject, thinker: Thinker, checkpoint: Checkpoint
) -> None:
    """Ids as by the processor, positions as by the model, which count in different precisions."""
    adapter: Any = checkpoint.adapter()
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
    examples = {
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


# ---- what cannot be heard


def test_a_sound_that_is_too_long_names_the_limit(family: str, towers: Towers) -> None:
    """Qwen3-Omni has none."""
    long = seconds(8.5)
    if family == "qwen3_omni_moe":
        assert prepare(towers, long).layout.num_rows == 6 * 13 + 13 + 13 + 7
        return
    with pytest.raises(BadMedia, match=r"8\.5 s long; this model listens to 8 s"):
        prepare(towers, long)
    with pytest.raises(BadMedia, match="truncation"):
        prepare(towers, replace(CLIPS["even"], sound=long))
    cut = prepare(towers, long, MediaOptions(truncation=True))
    whole = prepare(towers, Sound(samples=long.samples[: 8 * RATE], rate=RATE))
    assert cut.layout == whole.layout
    assert torch.equal(cut.inputs["input_features"], whole.inputs["input_features"])


@pytest.mark.parametrize("samples", [0, 1, 100, 200])
def test_too_little_sound_is_refused(samples: int, towers: Towers) -> None:
    with pytest.raises(BadMedia, match="empty|too short"):
        prepare(towers, sound(samples))
    if samples:
        with pytest.raises(BadMedia, match="too short"):
            prepare(towers, replace(CLIPS["even"], sound=sound(samples)))


def test_sound_at_another_rate_is_our_own_fault(towers: Towers) -> None:
    assert towers.sampling_rate == RATE
    with pytest.raises(InternalError, match="8000 samples a second"):
        prepare(towers, Sound(samples=seconds(1).samples, rate=8000))


# ---- ready-made


@pytest.mark.parametrize("media", [shown(100, 60), CLIPS["odd"], SOUNDS["odd"]], ids=str)
def test_rows_that_the_client_sends_are_those_of_the_tower(
    media: Picture | Clip | Sound, thinker: Thinker, towers: Towers
) -> None:
    made = prepare(towers, media)
    kind = made.layout.modality.value
    found = thinker.alone(media)
    tensors: Tensors = {f"{kind}_embeds": thinker.rows(found, kind).numpy()}
    if kind != "audio":
        tensors[f"{kind}_grid_thw"] = found[f"{kind}_grid_thw"][0].numpy()
    if kind == "video":
        tensors["video_second_per_grid"] = found["video_second_per_grid"].numpy()
    sent = towers.from_embeds(tensors, asked(made.layout.modality))
    assert sent.layout == made.layout
    assert sent.rows is not None
    assert torch.equal(towers.encode([sent])[0], towers.encode([made])[0])


@pytest.mark.parametrize(
    "rows", [np.zeros((3, 63)), np.zeros(64), np.zeros((0, 64)), np.full((2, 64), np.nan)]
)
def test_wrong_rows_of_a_sound_are_the_clients_fault(rows: np.ndarray, towers: Towers) -> None:
    with pytest.raises(BadRequest, match="audio_embeds"):
        towers.from_embeds({"audio_embeds": rows}, asked(Modality.AUDIO))


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


@pytest.mark.parametrize("name", ["audio", "video with sound"])
def test_wrong_rows_change_the_tokens(
    name: str, thinker: Thinker, towers: Towers, language: LanguageModel
) -> None:
    prompt, items = resolved(thinker, towers, REQUESTS[name])
    (rows,) = towers.encode(items)
    right = answer(language, prompt, [rows])
    (other,) = towers.encode([prepare(towers, seconds(3.7))])
    wrong = {
        "zeroed": torch.zeros_like(rows),
        "shifted": rows.roll(1, dims=0),
        "backwards": rows.flip(0),
        "of another sound": other.repeat(5, 1)[: len(rows)],
    }
    for what, others in wrong.items():
        assert answer(language, prompt, [others]) != right, what


def test_video_and_sound_each_matter_to_the_tokens(
    thinker: Thinker, towers: Towers, language: LanguageModel
) -> None:
    """Sound dropped, silenced, swapped for another; frames swapped; the flag off."""
    parts = REQUESTS["video with sound"]
    video = LOUD["as long"]
    assert video.sound is not None
    prompt, items = resolved(thinker, towers, parts)
    right = answer(language, prompt, towers.encode(items))

    def of(other: Clip, options: MediaOptions = WITH_SOUND) -> list[int]:
        item = prepare(towers, other, options)
        changed = prompt_of(thinker, parts, [item.layout])
        return answer(language, changed, towers.encode([item]))

    backwards = Sound(samples=video.sound.samples[::-1].copy(), rate=RATE)
    assert of(video) == right
    assert of(video, MediaOptions()) != right
    assert of(replace(video, sound=None)) != right
    assert of(replace(video, sound=backwards)) != right
    assert of(replace(video, frames=video.frames[::-1].copy())) != right


def test_wrong_positions_change_the_tokens(
    thinker: Thinker, towers: Towers, language: LanguageModel
) -> None:
    for name in ("fractions", "video with sound", "two videos with sound"):
        prompt, items = resolved(thinker, towers, REQUESTS[name])
        rows = towers.encode(items)
        right = answer(language, prompt, rows)
        positions, delta = language.positions(prompt)
        flat = torch.arange(positions.shape[1], dtype=torch.float64).expand(3, -1)
        assert answer(language, prompt, rows, (flat, 0)) != right
        assert answer(language, prompt, rows, (positions, delta + 40)) != right
