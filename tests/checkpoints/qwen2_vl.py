"""A tiny Qwen2-VL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from epd.models.random_checkpoint import CHAT_TEMPLATE
from epd.models.random_tokenizer import build_tokenizer
from epd.models.torchvision_shim import prepare_torchvision

PATCH = 14
TOKEN = (2 * PATCH) ** 2  # pixels that become one token

VISION = {
    "depth": 3,
    "embed_dim": 32,
    "hidden_size": 64,  # the language model's
    "mlp_ratio": 2,
    "num_heads": 2,
    "patch_size": PATCH,
    "initializer_range": 0.15,
}

TEXT = {
    "vocab_size": 1088,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "initializer_range": 0.15,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
}


def build(path: Path) -> Path:
    """Write it into the folder `path` and return it."""
    prepare_torchvision()
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    tokenizer = build_tokenizer(trained=1024, known=1024, max_context=8192, template=CHAT_TEMPLATE)
    token = tokenizer.convert_tokens_to_ids
    ends = {"eos_token_id": token("<|im_end|>"), "bos_token_id": token("<|endoftext|>")}
    config = Qwen2VLConfig(
        text_config=TEXT | ends,
        vision_config=VISION,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2VLForConditionalGeneration._from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = [token("<|im_end|>"), token("<|endoftext|>")]
    model.save_pretrained(path)
    _processor(tokenizer).save_pretrained(path)
    return path


def _processor(tokenizer: Any) -> Any:
    from transformers import Qwen2VLProcessor, Qwen2VLVideoProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    settings = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2}
    size = {"shortest_edge": 4 * TOKEN, "longest_edge": 256 * TOKEN}
    return Qwen2VLProcessor(
        Qwen2VLImageProcessorPil(size=size, **settings),
        tokenizer,
        Qwen2VLVideoProcessor(
            size=size | {"longest_edge": 64 * TOKEN}, cap_pixels_per_frame=False, **settings
        ),
        chat_template=CHAT_TEMPLATE,
    )
