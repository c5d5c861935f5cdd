"""Attention that ours does not compute is refused by name: in files, and in what is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from epd.errors import UnsupportedModel
from epd.models.heard import refuse_unheard
from epd.models.language import load_language
from epd.models.sections import DEFAULTS
from epd.models.spec import read_checkpoint
from epd.models.torchvision_shim import prepare_torchvision
from epd.models.variants import refuse_variants
from tests.checkpoints import build
from tests.models import stand_in

TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FOLDER = Path("checkpoint")


def written(kind: str, **text: Any) -> dict[str, Any]:
    """A LLaVA over this language model, as its config.json may have it."""
    return {"model_type": "llava", "text_config": {"model_type": kind, **TEXT, **text}}


REFUSED = [
    ("quantised with awq", "qwen2", {"quantization_config": {"quant_method": "awq"}}),
    (
        "weight_block_size None",
        "qwen2",
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": None}},
    ),
    ("a sliding window of 0 tokens", "qwen2", {"use_sliding_window": True, "sliding_window": 0}),
    ("a sliding window of True tokens", "mistral", {"sliding_window": True}),
    ("a sliding window of 9.5 tokens", "phi3", {"sliding_window": 9.5}),
    ("types chunked_attention", "llama4_text", {"layer_types": ["chunked_attention"] * 2}),
    ("types linear_attention", "qwen3_5", {"layer_types": ["full_attention", "linear_attention"]}),
    ("attention in chunks", "llama4_text", {"attention_chunk_size": 8192}),
    ("attention in both directions", "gemma3_text", {"use_bidirectional_attention": True}),
    ("attn_logit_softcapping 50.0", "gemma2", {"attn_logit_softcapping": 50.0}),
    ("final_logit_softcapping 30.0", "gemma2", {"final_logit_softcapping": 30.0}),
    ("type dynamic", "llama", {"rope_parameters": {"rope_type": "dynamic"}}),
    ("type longrope", "llama", {"rope_scaling": {"type": "longrope"}}),
    ("type dynamic", "llama", {"rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}),
]


@pytest.mark.parametrize(("words", "kind", "text"), REFUSED)
def test_a_variant_is_refused_before_anything_is_loaded(
    words: str, kind: str, text: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        refuse_variants(written(kind, **text), FOLDER)


@pytest.mark.parametrize(
    "config",
    [
        {"use_sliding_window": True, "sliding_window": -7, "model_type": "qwen2_5_vl"},
        {"rope_scaling": {"type": "longrope"}},
        {"quantization_config": {}, "text_config": {}},
    ],
)
def test_older_flat_files_are_read_too(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel):
        refuse_variants(config, FOLDER)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}),
        ("llama", {"rope_scaling": {"rope_type": "yarn"}, "attention_bias": True}),
        ("mistral", {}),
        ("mistral", {"sliding_window": None}),
        ("phi3", {"sliding_window": 9}),
        ("qwen2", {"use_sliding_window": True}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 7}),
        ("qwen2", {"sliding_window": 32768}),
        ("gemma3_text", {"layer_types": ["sliding_attention"] * 2}),
        ("qwen2", {"layer_types": ["full_attention"] * 2}),
        ("qwen2_5_vl_text", {"sliding_window": 32768}),
    ],
)
def test_plain_attention_is_not_refused_nor_within_a_window(
    kind: str, text: dict[str, Any]
) -> None:
    refuse_variants(written(kind, **text), FOLDER)


# ---- what only the loaded model shows


def decoder(kind: str, **text: Any) -> Any:
    prepare_torchvision()
    from transformers import CONFIG_MAPPING, AutoModel

    return AutoModel.from_config(CONFIG_MAPPING[kind](**{**TEXT, **text})).eval()


LOADED = [
    ("a sliding_window of 0", "mistral", {"sliding_window": 0}),
    (
        "layer 1 is of the type sliding_attention and asks for all",
        "llama",
        {"layer_types": ["full_attention", "sliding_attention"]},
    ),
    (
        "full_attention and asks for a sliding_window of 4",
        "mistral",
        {"sliding_window": 4, "layer_types": ["full_attention"] * 2},
    ),
    ("softcap", "gemma2", {"layer_types": ["full_attention"] * 2}),
    ("softcap", "gemma2", {}),
    ("types chunked_attention", "llama4_text", {"intermediate_size_mlp": 64}),
    (
        "s_aux",
        "gpt_oss",
        {"layer_types": ["full_attention"] * 2, "num_local_experts": 4, "head_dim": 16},
    ),
]


@pytest.mark.parametrize(("words", "kind", "text"), LOADED)
def test_what_a_loaded_model_asks_of_attention_is_refused(
    words: str, kind: str, text: dict[str, Any]
) -> None:
    """By defaults of its class, for example, which no file shows."""
    with pytest.raises(UnsupportedModel, match=words):
        refuse_unheard(decoder(kind, **text), "a model")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("llama", {}),
        ("mistral", {}),
        ("mistral", {"sliding_window": None}),
        ("phi3", {"sliding_window": 9}),
        ("gemma3_text", {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 32}),
        ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
        ("granite", {}),
    ],
)
def test_plain_models_are_heard_in_full(kind: str, text: dict[str, Any]) -> None:
    model = decoder(kind, **text)
    usual = model.config._attn_implementation
    refuse_unheard(model, "a model")
    assert model.config._attn_implementation == usual


def test_layers_without_attention_are_refused() -> None:
    """Recurrent ones, for example: nothing of theirs would be kept between steps."""
    model = decoder("llama")
    model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(UnsupportedModel, match="only 1 of 2 layers"):
        refuse_unheard(model, "a model")


def test_causal_is_the_only_direction() -> None:
    model = decoder("llama")
    forward = model.layers[0].self_attn.forward
    model.layers[0].self_attn.forward = lambda *args, **kwargs: forward(
        *args, is_causal=False, **kwargs
    )
    with pytest.raises(UnsupportedModel, match="is_causal"):
        refuse_unheard(model, "a model")


def test_loading_asks(tmp_path: Path) -> None:
    """A layer whose window the files promise, and whose class has none."""
    path = build("llava_next", tmp_path / "plain")
    folder = Path(shutil.copytree(path, tmp_path / "windowed"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"sliding_window": None, "layer_types": ["sliding_attention"] * 3}
    (folder / "config.json").write_text(json.dumps(config))
    with stand_in.attention(), pytest.raises(UnsupportedModel, match="asks for all"):
        load_language(read_checkpoint(folder), device="cpu", dtype="float32")


def test_the_probe_leaves_answers_as_they_were() -> None:
    model = decoder("llama")
    ids = torch.tensor([[3, 4, 5]])
    with torch.inference_mode():
        before = model(ids).last_hidden_state
        refuse_unheard(model, "a model")
        assert torch.equal(model(ids).last_hidden_state, before)


def test_defaults_that_have_a_window_are_known() -> None:
    assert DEFAULTS["mistral"]["sliding_window"] == 4096
