"""Sizes from headers and JSON, against the model that transformers builds from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from epd.errors import ConfigError
from epd.models.language import LanguageModel
from epd.models.sizes import num_weights, text_size, vision_size
from epd.models.spec import read_checkpoint
from epd.types import Modality
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


def test_values_of_a_patch_are_those_that_the_tower_takes(path: Path, reference: Reference) -> None:
    weight = reference.model.model.visual.patch_embed.proj.weight
    assert vision_size(read_checkpoint(path)).patch_values == weight[0].numel()


def test_a_configuration_that_lacks_a_size_is_refused_by_name(path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(path, tmp_path / "lacking"))
    config = json.loads((folder / "config.json").read_text())
    del config["text_config"]["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="num_hidden_layers is None"):
        text_size(read_checkpoint(folder))
