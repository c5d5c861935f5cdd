"""What the tiny LLaVA-style checkpoints have in common: sizes, towers, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONTEXT = 8192
VARIED = 0.15
"""Far above the usual 0.02, so that what a random model says depends on its input."""

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": VARIED,
}

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}

CLIP = {**VISION, "model_type": "clip_vision_model", "image_size": 56, "patch_size": 14}


def write(path: Path, architecture: str, config: Any, processor: Any) -> Path:
    """Random weights, always the same ones, with every file of a published checkpoint."""
    import torch
    import transformers
    from transformers.utils import logging

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, architecture)._from_config(config, dtype=torch.float32)
        for name, weight in model.named_parameters():
            if "language_model" not in name and weight.dim() > 1:
                # transformers gives some towers weights so small that all pictures look alike.
                torch.nn.init.normal_(weight, std=VARIED)
    tokenizer = processor.tokenizer
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    logging.disable_progress_bar()
    path.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def ids_of(tokenizer: Any) -> dict[str, int]:
    """The language model's, from the tokenizer."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
