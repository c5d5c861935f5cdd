"""A tiny Qwen3-VL with experts, in the files of the dense one but for its weights."""

from __future__ import annotations

import json
from pathlib import Path

from epd.models.random_checkpoint import HEAD_NORM, TINY, build_random_checkpoint

EXPERTS = {
    "model_type": "qwen3_vl_moe_text",
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "mlp_only_layers": [2],  # one layer without experts
}


def build(path: Path, *, inside: int = 48) -> Path:
    """Write it into the folder `path` and return it. `inside`: the width of an expert."""
    build_random_checkpoint(path, family="qwen3_vl", sizes=TINY)
    import torch
    from transformers import GenerationConfig, Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

    dense = json.loads((path / "config.json").read_text())
    whole = {key: value for key, value in dense.items() if key != "architectures"}
    config = Qwen3VLMoeConfig(
        **whole
        | {
            "model_type": "qwen3_vl_moe",
            "text_config": dense["text_config"] | EXPERTS | {"moe_intermediate_size": inside},
            "vision_config": dense["vision_config"] | {"model_type": "qwen3_vl_moe_vision"},
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3VLMoeForConditionalGeneration._from_config(config, dtype=torch.float32)
        for name, weight in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                torch.nn.init.constant_(weight, HEAD_NORM)
            elif name.endswith("mlp.gate.weight"):
                torch.nn.init.normal_(weight, std=0.5)  # else all experts are nearly alike
    model.generation_config = GenerationConfig.from_pretrained(path)
    model.save_pretrained(path)
    return path
