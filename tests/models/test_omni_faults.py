"""What the Omni thinkers refuse, what clients may send ready-made, and what would go unnoticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from epd.errors import BadMedia, BadRequest, InternalError
from epd.media.decoded import Clip, Picture, Sound, Tensors
from epd.models.language import LanguageModel
from epd.models.towers import Towers
from epd.types import MediaOptions, Modality
from tests.models.clips import CLIPS, shown
from tests.models.in_parts import (
    WITH_SOUND,
    answer,
    prepare,
    prompt_of,
    resolved,
)
from tests.models.pictures import asked
from tests.models.sounds import LOUD, RATE, REQUESTS, SOUNDS, seconds, sound
from tests.models.thinker import Thinker

OMNI = ("qwen2_5_omni", "qwen3_omni_moe")

pytestmark = [
    pytest.mark.parametrize("family", OMNI, indirect=True, scope="session"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # in transformers' processors
]

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


@pytest.mark.parametrize(
    "media", [shown(100, 60), CLIPS["odd"], SOUNDS["odd"]], ids=["image", "video", "audio"]
)
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
