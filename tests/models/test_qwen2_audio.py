"""Sounds through Qwen2-Audio's halves equal the whole Hugging Face model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from epd.errors import BadMedia, BadRequest, UnsupportedModel
from epd.media.decoded import Sound
from epd.models.families.qwen2_audio import FAMILY
from epd.models.language import LanguageModel
from epd.models.spec import Checkpoint
from epd.models.towers import Towers, load_towers
from epd.types import MediaOptions, Modality
from tests.models.generate import greedy, merged
from tests.models.in_parts import NUM_TOKENS, answer, prepare, resolved
from tests.models.pictures import asked
from tests.models.sounds import RATE, SOUNDS, Part, seconds, sound
from tests.models.test_spec import edited
from tests.models.thinker import Found, Thinker

pytestmark = pytest.mark.parametrize("family", ["qwen2_audio"], indirect=True, scope="session")

CHATS: dict[str, tuple[Part, ...]] = {
    "one": ("Hear: ", SOUNDS["two seconds"], "what is it?"),
    "two": (SOUNDS["short"], "or 1", SOUNDS["long"], "?"),
    "the same twice": (SOUNDS["odd"], SOUNDS["odd"], "why?"),
}


def whole_rows(thinker: Thinker, found: Found) -> torch.Tensor:
    """What the model puts in the places of sound tokens."""
    seen: list[torch.Tensor] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["inputs_embeds"])

    handle = thinker.model.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    with torch.inference_mode():
        thinker.model(**found)
    handle.remove()
    return seen[0][found["input_ids"] == thinker.processor.audio_token_id]


@pytest.mark.parametrize("name", SOUNDS)
def test_ids_and_rows_of_a_sound_equal_the_whole_model(
    name: str, thinker: Thinker, towers: Towers
) -> None:
    item = prepare(towers, SOUNDS[name])
    found = thinker.alone(SOUNDS[name])
    (rows,) = towers.encode([item])
    assert list(item.layout.token_ids) == found["input_ids"][0].tolist()
    if len(rows) > 1:  # of one token alone transformers thinks that nobody has expanded it
        assert torch.equal(rows, whole_rows(thinker, found))
    assert item.layout.row_spans == ((0, len(rows)),) and item.layout.positions == b""


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_equals_the_whole_model(
    name: str, thinker: Thinker, towers: Towers, language: LanguageModel
) -> None:
    """Rendered by the processor's own template: the folder has none."""
    prompt, items = resolved(thinker, towers, CHATS[name])
    found = thinker.inputs(CHATS[name])
    assert prompt.token_ids() == found["input_ids"][0].tolist()
    positions, delta = language.positions(prompt)
    assert delta == 0 and positions.tolist() == list(range(prompt.num_tokens))
    inputs = merged(language, prompt, towers.encode(items))
    new = greedy(language, inputs, positions, delta, NUM_TOKENS)
    assert new == thinker.generate(found, NUM_TOKENS)


def test_rows_do_not_depend_on_the_rest_of_the_batch(towers: Towers) -> None:
    """Among them a sound that fills the window, so that nothing is masked where it is alone."""
    items = [prepare(towers, one) for one in (*SOUNDS.values(), seconds(6))]
    alone = [towers.encode([item])[0] for item in items]
    num = len(items)
    for order in (range(num), range(num - 1, -1, -1), (num - 1, 3), (4, 4)):
        for i, rows in zip(order, towers.encode([items[i] for i in order]), strict=True):
            torch.testing.assert_close(rows, alone[i], rtol=1e-5, atol=1e-5)


def test_a_sound_that_is_too_long_names_the_limit(towers: Towers) -> None:
    long = seconds(6.5)
    with pytest.raises(BadMedia, match=r"6\.5 s long; this model listens to 6 s"):
        prepare(towers, long)
    cut = prepare(towers, long, MediaOptions(truncation=True))
    whole = prepare(towers, Sound(samples=long.samples[: 6 * RATE], rate=RATE))
    assert cut.layout == whole.layout
    assert torch.equal(cut.inputs["input_features"], whole.inputs["input_features"])


@pytest.mark.parametrize("samples", [0, 1, 100, 320])
def test_too_little_sound_is_refused(samples: int, towers: Towers) -> None:
    with pytest.raises(BadMedia, match="empty|too short"):
        prepare(towers, sound(samples))


def test_rows_that_the_client_sends_are_those_of_the_tower(towers: Towers) -> None:
    made = prepare(towers, SOUNDS["odd"])
    (rows,) = towers.encode([made])
    sent = towers.from_embeds({"audio_embeds": rows.numpy()}, asked(Modality.AUDIO))
    assert sent.layout == made.layout and torch.equal(towers.encode([sent])[0], rows)
    with pytest.raises(BadRequest, match=r"audio_embeds has the shape \[3, 5\]"):
        towers.from_embeds({"audio_embeds": rows[:3, :5].numpy()}, asked(Modality.AUDIO))


def test_another_window_than_the_towers_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The tower would fail at the first sound."""
    extractor = {"feature_extractor": {"chunk_length": 9, "feature_size": 32}}
    folder = edited(checkpoint.path, tmp_path / "c", "processor_config.json", **extractor)
    other = replace(checkpoint, path=folder)
    with pytest.raises(UnsupportedModel, match="900 frames, of the tower 600"):
        load_towers(other, modalities=(Modality.AUDIO,), device="cpu", dtype="float32")


TURNS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Only words."}],
    [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": " who? "}]},
        {"role": "assistant", "content": "A dog."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Or:\n"}, {"type": "audio"}, {"type": "audio"}],
        },
    ],
]


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("answers", [False, True])
def test_the_default_template_is_the_processors(
    turns: list[dict[str, Any]], answers: bool, thinker: Thinker, checkpoint: Checkpoint
) -> None:
    assert not (checkpoint.path / "chat_template.jinja").exists()
    options = {"tokenize": False, "add_generation_prompt": answers}
    theirs = thinker.processor.apply_chat_template(turns, **options)
    template = {"chat_template": FAMILY.default_template}
    assert thinker.processor.tokenizer.apply_chat_template(turns, **template, **options) == theirs


def test_wrong_rows_change_the_tokens(
    thinker: Thinker, towers: Towers, language: LanguageModel
) -> None:
    prompt, items = resolved(thinker, towers, CHATS["one"])
    (rows,) = towers.encode(items)
    right = answer(language, prompt, [rows])
    (other,) = towers.encode([prepare(towers, seconds(2.5))])
    for wrong in (torch.zeros_like(rows), rows.roll(1, 0), rows.flip(0), other[: len(rows)]):
        assert answer(language, prompt, [wrong]) != right
