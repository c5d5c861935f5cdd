"""The model's sizes, as transformers' configuration of a Qwen2.5-Omni thinker."""

from __future__ import annotations

from typing import Any

from epd.models.torchvision_shim import prepare_torchvision

prepare_torchvision()

HIDDEN = 192
VISION = {
    "depth": 4,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_heads": 4,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [0, 1, 2, 3],
    "out_hidden_size": HIDDEN,
}
AUDIO = {
    "d_model": 128,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 384,
    "num_mel_bins": 64,
    "n_window": 250,
    "max_source_positions": 250,
    "output_dim": HIDDEN,
}
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
    "tie_word_embeddings": False,
}


def config(tokenizer: Any) -> Any:
    """With this tokenizer's ids, its vocabulary rounded up to a multiple of 64."""
    from transformers import Qwen2_5OmniThinkerConfig

    token = tokenizer.convert_tokens_to_ids
    ends = {
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }
    return Qwen2_5OmniThinkerConfig(
        text_config={**TEXT, **ends, "vocab_size": -(-len(tokenizer) // 64) * 64},
        vision_config=VISION,
        audio_config=AUDIO,
        audio_token_index=token("<|AUDIO|>"),
        image_token_index=token("<|IMAGE|>"),
        video_token_index=token("<|VIDEO|>"),
        audio_start_token_id=token("<|audio_bos|>"),
        audio_end_token_id=token("<|audio_eos|>"),
        vision_start_token_id=token("<|vision_bos|>"),
        vision_end_token_id=token("<|vision_eos|>"),
        user_token_id=token("user"),
        tie_word_embeddings=False,
    )


def vision_tower() -> Any:
    """The tower alone, with random weights."""
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import (
        Qwen2_5OmniVisionEncoderConfig,
    )
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniVisionEncoder

    return Qwen2_5OmniVisionEncoder._from_config(Qwen2_5OmniVisionEncoderConfig(**VISION))
