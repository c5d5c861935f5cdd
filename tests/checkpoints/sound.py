"""What the tiny checkpoints of families that hear have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epd.models.random_tokenizer import build_tokenizer

MEL_BINS = 32
CONTEXT = 8192
VOCAB = 1088

TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
}
TOWER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "num_mel_bins": MEL_BINS,
    "initializer_range": 0.15,
}


def tokenizer(special: Sequence[str], named: Mapping[str, str]) -> Any:
    """The shared words, with these tokens behind them."""
    return build_tokenizer(
        trained=1024,
        known=1024,
        max_context=CONTEXT,
        template=None,
        special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", *special),
        named=named,
    )


def extractor(seconds: int) -> Any:
    """Whisper's, for a window of so many seconds."""
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(
        feature_size=MEL_BINS,
        sampling_rate=16_000,
        chunk_length=seconds,
        return_attention_mask=True,
    )


def save(model_class: Any, config: Any, processor: Any, path: Path) -> Path:
    """Random weights, equal for equal arguments, beside the processor's files."""
    import torch
    from transformers import GenerationConfig
    from transformers.utils import logging

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class._from_config(config, dtype=torch.float32)
        for name, weight in model.named_parameters():
            # Even attention, experts that are alike and sounds that are would make all answers so.
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                torch.nn.init.constant_(weight, 2.0)
            elif name.endswith("mlp.gate.weight") or (".conv" in name and weight.ndim > 2):
                torch.nn.init.normal_(weight, std=0.5)
    token = processor.tokenizer.convert_tokens_to_ids
    model.generation_config = GenerationConfig(
        pad_token_id=token("<|endoftext|>"),
        eos_token_id=[token("<|im_end|>"), token("<|endoftext|>")],
    )
    logging.disable_progress_bar()
    path.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path
