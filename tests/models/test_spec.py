"""A checkpoint folder is understood, or refused in words, from its JSON files alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from epd.errors import ConfigError, UnsupportedModel
from epd.models.families import families
from epd.models.spec import Checkpoint, read_checkpoint
from epd.types import Modality


def edited(path: Path, folder: Path, file: str, **changes: Any) -> Path:
    """A copy of the checkpoint with changed keys in one JSON file; None removes a key."""
    shutil.copytree(path, folder)
    content = json.loads((folder / file).read_text()) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    (folder / file).write_text(json.dumps(kept))
    return folder


def test_the_facts_that_every_stage_needs(checkpoint: Checkpoint, family: str) -> None:
    assert checkpoint.spec.name == family
    assert checkpoint.spec.placeholders == {
        Modality.IMAGE: "<|image_pad|>",
        Modality.VIDEO: "<|video_pad|>",
    }
    assert checkpoint.name == "tiny"
    assert checkpoint.dtype == "float32"
    assert (checkpoint.max_context, checkpoint.vocab_size) == (8192, 1088)
    assert checkpoint.eos_token_ids == (1024, 1025)
    assert checkpoint.generation["repetition_penalty"] == 1.05


def test_every_family_has_a_placeholder_for_each_modality() -> None:
    for family in families():
        assert set(family.placeholders) == set(family.modalities)


def test_flat_files_of_older_checkpoints_are_read(path: Path, tmp_path: Path) -> None:
    """Published Qwen2.5-VL files have the language model's values at the top."""
    text = json.loads((path / "config.json").read_text())["text_config"]
    flat = {**text, "text_config": None, "dtype": None, "torch_dtype": "bfloat16"}
    folder = edited(path, tmp_path / "flat", "config.json", **flat)
    found = read_checkpoint(folder)
    assert (found.max_context, found.vocab_size, found.dtype) == (8192, 1088, "bfloat16")


def test_a_context_may_be_shorter_than_the_checkpoints_and_never_longer(path: Path) -> None:
    assert read_checkpoint(path, max_context=100).max_context == 100
    with pytest.raises(ConfigError, match="language.max_context is 8193: tiny has 8192 positions"):
        read_checkpoint(path, max_context=8193)


def test_a_silent_configuration_means_the_stored_dtype(path: Path, tmp_path: Path) -> None:
    assert (
        read_checkpoint(edited(path, tmp_path / "c", "config.json", dtype=None)).dtype == "float32"
    )


def test_without_generation_config_eos_comes_from_the_model(path: Path, tmp_path: Path) -> None:
    folder = edited(path, tmp_path / "c", "config.json")
    (folder / "generation_config.json").unlink()
    assert read_checkpoint(folder).eos_token_ids == (1024,)
    assert read_checkpoint(folder).generation == {}


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "MllamaForConditionalGeneration"])
def test_another_architecture_is_named_beside_the_supported_ones(
    name: str, path: Path, tmp_path: Path
) -> None:
    folder = edited(path, tmp_path / "c", "config.json", architectures=[name])
    with pytest.raises(UnsupportedModel) as caught:
        read_checkpoint(folder)
    assert f"{name} is not supported" in caught.value.message
    for supported in ("Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration"):
        assert supported in caught.value.message


@pytest.mark.parametrize("kind", ["Qwen3_5", "Qwen3_5Moe"])
@pytest.mark.parametrize("head", ["ForConditionalGeneration", "ForCausalLM"])
def test_recurrent_layers_are_refused_and_named(kind: str, head: str, tmp_path: Path) -> None:
    """Qwen3.5 as published: what its layers keep is no block of keys and values."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(architectures=[f"{kind}{head}"])
    assert "linear_attention" in config.text_config.layer_types
    config.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="GatedDeltaNet.*one recurrent state per sequence"):
        read_checkpoint(tmp_path)


def test_what_is_wrong_with_a_folder_is_said(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot read"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="not a JSON object"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="names no architecture"):
        read_checkpoint(tmp_path)
    broken = edited(path, tmp_path / "c", "config.json", text_config={"vocab_size": "many"})
    with pytest.raises(ConfigError, match="is 'many', not a positive number|is None"):
        read_checkpoint(broken)


def test_reading_needs_neither_torch_nor_transformers(path: Path, checkpoint: Checkpoint) -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from epd.models.spec import read_checkpoint\n"
        "print(read_checkpoint(sys.argv[1]).fingerprint()['architecture'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == checkpoint.architecture
