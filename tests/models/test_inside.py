"""A thinker inside the whole model's folder is the thinker, and the rest is as if not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from epd.errors import ConfigError, UnsupportedModel
from epd.models.language import LanguageModel, load_language
from epd.models.sizes import num_weights, text_size
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.towers import Towers, load_towers
from epd.types import Modality
from tests.checkpoints.omni import enclose
from tests.models import stand_in
from tests.models.in_parts import answer, prepare, resolved
from tests.models.sounds import LOUD, SOUNDS
from tests.models.test_spec import edited
from tests.models.thinker import Thinker

OMNI = ("qwen2_5_omni", "qwen3_omni_moe")

pytestmark = [
    pytest.mark.parametrize("family", OMNI, indirect=True, scope="session"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # in transformers' processors
]


@pytest.fixture(scope="session")
def enclosed(path: Path, family: str, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("whole") / "model"
    return read_checkpoint(enclose(path, folder, family=family))


@pytest.fixture(scope="session")
def inner_towers(enclosed: Checkpoint) -> Towers:
    modalities = enclosed.spec.modalities
    return load_towers(enclosed, modalities=modalities, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def inner_language(enclosed: Checkpoint) -> LanguageModel:
    with stand_in.attention():
        return load_language(enclosed, device="cpu", dtype="float32")


def test_it_is_read_as_the_thinker_is(enclosed: Checkpoint, checkpoint: Checkpoint) -> None:
    assert enclosed.spec is checkpoint.spec
    assert enclosed.architecture == checkpoint.architecture
    assert enclosed.config.items() >= {"model_type": checkpoint.config["model_type"]}.items()
    for name in ("dtype", "max_context", "vocab_size"):
        assert getattr(enclosed, name) == getattr(checkpoint, name)
    assert (enclosed.prefix, checkpoint.prefix) == ("thinker.", "")


def test_talker_and_vocoder_count_for_nothing(enclosed: Checkpoint, checkpoint: Checkpoint) -> None:
    every = enclosed.spec.modalities
    for modalities in (every, (Modality.AUDIO,), (Modality.IMAGE,)):
        assert num_weights(enclosed, modalities) == num_weights(checkpoint, modalities)
    assert text_size(enclosed) == text_size(checkpoint)


def test_both_halves_have_the_thinkers_weights_alone(
    inner_towers: Towers, inner_language: LanguageModel, towers: Towers, language: LanguageModel
) -> None:
    assert inner_towers.weight_bytes == towers.weight_bytes
    assert inner_language.weight_bytes == language.weight_bytes


def test_answers_are_the_thinkers(
    thinker: Thinker,
    towers: Towers,
    language: LanguageModel,
    inner_towers: Towers,
    inner_language: LanguageModel,
) -> None:
    """Of sounds: the folder's settings give videos another size."""
    parts = ("Hear ", SOUNDS["odd"], " and 2", SOUNDS["two seconds"], "?")
    prompt, items = resolved(thinker, towers, parts)
    inner_prompt, inner_items = resolved(thinker, inner_towers, parts)
    assert inner_prompt == prompt
    right = answer(language, prompt, towers.encode(items))
    assert answer(inner_language, inner_prompt, inner_towers.encode(inner_items)) == right


def test_frames_are_as_large_as_the_processor_makes_them(
    enclosed: Checkpoint, inner_towers: Towers
) -> None:
    """One file of settings for pictures says nothing of videos; transformers' processor does."""
    usual = Thinker(enclosed.path, enclosed.architecture, video_size=False)
    for clip in (LOUD["as long"], LOUD["wider than its sound"]):
        item = prepare(inner_towers, clip)
        found = usual.alone(clip)
        assert list(item.layout.token_ids) == found["input_ids"][0].tolist()
        assert torch.equal(item.inputs["pixel_values_videos"], found["pixel_values_videos"])


def test_a_dtype_that_is_said_of_the_whole_is_the_thinkers(
    enclosed: Checkpoint, tmp_path: Path
) -> None:
    thinker = enclosed.config | {"dtype": None}
    silent = edited(enclosed.path, tmp_path / "a", "config.json", thinker_config=thinker)
    assert read_checkpoint(silent).dtype == "float32"  # as stored; the talker is in bfloat16
    said = edited(silent, tmp_path / "b", "config.json", torch_dtype="bfloat16")
    text = json.loads((said / "config.json").read_text())
    del text["thinker_config"]["dtype"]
    (said / "config.json").write_text(json.dumps(text))
    assert read_checkpoint(said).dtype == "bfloat16"


def test_a_whole_that_is_quantised_is_refused(enclosed: Checkpoint, tmp_path: Path) -> None:
    folder = edited(enclosed.path, tmp_path / "c", "config.json", quantization_config={"bits": 4})
    with pytest.raises(UnsupportedModel, match="quantised"):
        read_checkpoint(folder)


def test_an_unknown_weight_of_the_thinker_is_still_refused(
    enclosed: Checkpoint, tmp_path: Path
) -> None:
    folder = edited(enclosed.path, tmp_path / "c", "config.json")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    save_file({"thinker.visual.extra.weight": torch.ones(2)}, folder / "extra.safetensors")
    index["weight_map"]["thinker.visual.extra.weight"] = "extra.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"has unknown 1 weights: .*extra"):
        load_towers(
            read_checkpoint(folder), modalities=(Modality.IMAGE,), device="cpu", dtype="float32"
        )


def test_without_a_file_that_names_it_the_usual_token_ends_an_answer(
    enclosed: Checkpoint, tmp_path: Path
) -> None:
    """As the code of transformers has it, not the checkpoint."""
    text = enclosed.config["text_config"] | {"vocab_size": 151_936}
    thinker = enclosed.config | {"text_config": text}
    folder = edited(enclosed.path, tmp_path / "c", "config.json", thinker_config=thinker)
    assert read_checkpoint(folder).eos_token_ids == (151_645,)
    assert enclosed.eos_token_ids == ()  # too small a vocabulary to have it
