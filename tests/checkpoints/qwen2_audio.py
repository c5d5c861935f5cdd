"""A tiny Qwen2-Audio. As published, its folder has no chat template: the processor brings one."""

from __future__ import annotations

from pathlib import Path

from epd.models.torchvision_shim import prepare_torchvision
from tests.checkpoints.sound import TEXT, TOWER, extractor, save, tokenizer

SECONDS = 6
"""How much of a sound it listens to."""

NAMED = {
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}


def build(path: Path) -> Path:
    """Write it into the folder `path` and return it."""
    prepare_torchvision()
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
    )

    words = tokenizer(tuple(NAMED.values()), NAMED)
    rope = {"rope_type": "default", "rope_theta": 1e4}
    config = Qwen2AudioConfig(
        text_config={"model_type": "qwen2", "rope_parameters": rope, **TEXT},
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "max_source_positions": 50 * SECONDS,
            **TOWER,
        },
        audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
    )
    processor = Qwen2AudioProcessor(extractor(SECONDS), words)
    save(Qwen2AudioForConditionalGeneration, config, processor, path)
    (path / "chat_template.jinja").unlink()
    return path
