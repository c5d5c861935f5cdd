"""Every Qwen-VL checkpoint is read in halves, whatever the age of its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from epd.models.language import LanguageModel, load_language
from epd.models.leaves import replace_leaves
from epd.models.partial import load_part
from epd.models.sizes import num_weights, text_size, vision_size
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.towers import Towers, load_towers
from epd.types import Modality
from tests.models import stand_in
from tests.models.clips import CLIPS, REQUESTS, shown
from tests.models.generate import greedy, merged
from tests.models.qwen_requests import prepare, resolved
from tests.models.test_qwen_vl import QWEN
from tests.models.whole import Whole
from tests.reference import Reference

pytestmark = pytest.mark.parametrize("family", QWEN, indirect=True, scope="session")

BOTH = (Modality.IMAGE, Modality.VIDEO)


def test_the_halves_are_the_whole(checkpoint: Checkpoint, reference: Reference) -> None:
    adapter = checkpoint.adapter()
    parts = (adapter.tower_parts(BOTH), adapter.language_parts())
    halves = [load_part(checkpoint, keep, device="cpu", dtype="float32") for keep in parts]
    towers, language = (dict(half.named_parameters()) for half in halves)
    whole = dict(reference.model.named_parameters())
    assert not towers.keys() & language.keys()
    assert (towers | language).keys() == whole.keys()
    for name, weight in (towers | language).items():
        assert torch.equal(weight, whole[name]), name


def test_weights_are_counted_from_the_files(checkpoint: Checkpoint, reference: Reference) -> None:
    tower = sum(weight.numel() for weight in reference.model.model.visual.parameters())
    every = sum(weight.numel() for weight in reference.model.parameters())
    for modalities in ([Modality.VIDEO], BOTH):
        assert num_weights(checkpoint, modalities) == (tower, every - tower)


def test_sizes_are_those_of_the_modules(
    checkpoint: Checkpoint, reference: Reference, language: LanguageModel
) -> None:
    visual: Any = reference.model.model.visual
    size, text = vision_size(checkpoint), text_size(checkpoint)
    assert size.patch_values == visual.patch_embed.proj.weight[0].numel()
    assert size.hidden == visual.patch_embed.proj.weight.shape[0]
    mlp = dict(visual.blocks[0].mlp.named_modules())
    first = mlp.get("fc1") or mlp.get("linear_fc1") or mlp["gate_proj"]
    assert size.intermediate == first.out_features
    assert text.kv_values == 2 * language.num_layers * language.kv_heads * language.head_dim


def test_our_leaf_modules_compute_what_transformers_does(checkpoint: Checkpoint) -> None:
    """In bfloat16, where the weights are packed; experts stay transformers' own."""
    adapter = checkpoint.adapter()
    plain = load_part(checkpoint, adapter.language_parts(), device="cpu", dtype="bfloat16")
    packed = load_part(checkpoint, adapter.language_parts(), device="cpu", dtype="bfloat16")
    replace_leaves(packed, single_rows=True)
    ids = torch.arange(0, 600, 30)[None]
    with torch.inference_mode():
        theirs, ours = (
            adapter.decoder(model)(input_ids=ids, use_cache=False).last_hidden_state.float()
            for model in (plain, packed)
        )
    similar = torch.nn.functional.cosine_similarity(theirs, ours, dim=-1)
    assert similar.median() > 0.99


def test_towers_in_bfloat16_stay_near(checkpoint: Checkpoint, towers: Towers) -> None:
    narrow = load_towers(checkpoint, modalities=BOTH, device="cpu", dtype="bfloat16")
    (rows,) = narrow.encode([prepare(narrow, CLIPS["odd"])])
    (exact,) = towers.encode([prepare(towers, CLIPS["odd"])])
    assert rows.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(rows.float(), exact, dim=1).min() > 0.97


def test_flat_files_with_settings_of_their_time_give_the_same_answers(
    family: str, path: Path, whole: Whole, towers: Towers, tmp_path: Path
) -> None:
    """As Qwen2-VL and Qwen2.5-VL were published: the language model's values at the top, one file
    of settings for pictures and videos, pixels under their old names."""
    if family not in ("qwen2_vl", "qwen2_5_vl"):
        pytest.skip("never published so")
    old = read_checkpoint(_older(path, tmp_path / "older"))
    new_towers = load_towers(old, modalities=BOTH, device="cpu", dtype="float32")
    with stand_in.attention():
        language = load_language(old, device="cpu", dtype="float32")
    parts = REQUESTS["image and video"]
    prompt, items = resolved(whole, new_towers, parts)
    inputs = merged(language, prompt, new_towers.encode(items))
    expected = whole.generate(whole.inputs(parts), 6)
    assert greedy(language, inputs, *language.positions(prompt), 6) == expected
    text_size(old), vision_size(old), num_weights(old, BOTH)
    for media in (shown(90, 50), CLIPS["odd"]):
        assert prepare(new_towers, media).layout == prepare(towers, media).layout


def _older(path: Path, folder: Path) -> Path:
    shutil.copytree(path, folder)
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    del text["model_type"], text["dtype"], config["dtype"]
    config["vision_config"].pop("model_type")
    flat = {**text, **config, "rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    (folder / "config.json").write_text(json.dumps(flat | {"torch_dtype": "float32"}))
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())["image_processor"]
    size = settings.pop("size")
    settings |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"] // 4}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    file.unlink()
    return folder
