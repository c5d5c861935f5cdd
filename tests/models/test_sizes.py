"""Sizes from headers and JSON, against the model that transformers builds from them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epd.config import Config
from epd.errors import ConfigError
from epd.models.language import LanguageModel
from epd.models.sections import DEFAULTS, text_section
from epd.models.sizes import num_weights, text_size, tower_size
from epd.models.spec import Checkpoint, read_checkpoint
from epd.types import Modality
from epd.workers.memory import needs_of
from tests.checkpoints import BUILDERS, build
from tests.reference import Reference


def test_weights_of_towers_and_language_model_make_the_whole(
    path: Path, reference: Reference
) -> None:
    towers, language = num_weights(read_checkpoint(path), [Modality.IMAGE])
    assert towers == sum(weight.numel() for weight in reference.model.model.visual.parameters())
    assert towers + language == sum(weight.numel() for weight in reference.model.parameters())


def test_sizes_of_the_language_model(path: Path, language: LanguageModel) -> None:
    size = text_size(read_checkpoint(path))
    assert (size.layers, size.hidden) == (language.num_layers, language.hidden_size)
    values = 2 * language.num_layers * language.kv_heads * language.head_dim
    assert size.kv_values == values


def test_the_widest_tower_counts(path: Path, reference: Reference) -> None:
    vision = reference.model.config.vision_config
    found = tower_size(read_checkpoint(path))
    assert (found.hidden, found.intermediate) == (vision.hidden_size, vision.intermediate_size)


def with_config(checkpoint: Checkpoint, **sections: Any) -> Checkpoint:
    text = checkpoint.config["text_config"]
    return replace(checkpoint, config={"text_config": text, **sections})


def test_towers_of_every_kind_have_a_size(path: Path) -> None:
    """Vision towers, audio towers, both, and families that call theirs otherwise."""
    checkpoint = read_checkpoint(path)
    vision = {"hidden_size": 3584, "embed_dim": 1280, "mlp_ratio": 4}
    audio = {"d_model": 1024, "encoder_ffn_dim": 6000}
    for sections, expected in (
        ({"vision_config": vision}, (1280, 5120)),
        ({"audio_config": audio}, (1024, 6000)),
        ({"vision_config": vision, "audio_config": audio}, (1280, 6000)),
        ({"series_config": {"hidden_size": 7}}, (7, 28)),
        ({}, (64, 128)),
    ):
        found = tower_size(with_config(checkpoint, **sections))
        assert (found.hidden, found.intermediate) == expected


def test_what_a_file_leaves_out_is_what_its_class_says() -> None:
    from transformers import CONFIG_MAPPING

    for kind, defaults in DEFAULTS.items():
        config = CONFIG_MAPPING[kind]
        assert defaults == {name: getattr(config, name) for name in defaults}, kind
        for name in {"num_key_value_heads", "head_dim", "use_sliding_window"} - defaults.keys():
            assert getattr(config, name, None) is None, (kind, name)


def test_a_published_llava_is_understood() -> None:
    """Its language model's part says next to nothing."""
    text = {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064}
    section = text_section({"model_type": "llava", "text_config": text})
    assert (section["hidden_size"], section["vocab_size"]) == (4096, 32064)
    section = text_section({"model_type": "llava", "text_config": {"vocab_size": 5}})
    assert (section["num_hidden_layers"], section["max_position_embeddings"]) == (32, 2048)


@pytest.mark.parametrize("family", BUILDERS)
def test_memory_of_every_role_is_known_for_every_family(family: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(build(family, tmp_path / family))
    for role in ("encode", "prefill", "decode", "engine"):
        needs = needs_of(role, Config(), checkpoint, device="cpu")
        assert all(need.num_bytes > 0 for need in needs if "weights" in need.name)


def test_a_configuration_that_lacks_a_size_is_refused_by_name(path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(path, tmp_path / "lacking"))
    config = json.loads((folder / "config.json").read_text())
    del config["text_config"]["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="num_hidden_layers is None"):
        text_size(read_checkpoint(folder))
