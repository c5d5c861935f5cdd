"""A byte-level tokenizer trained offline, with the added tokens of the Qwen-VL families."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PLAIN_TOKENS = ("<tool_call>", "</tool_call>")  # added, yet shown to the reader when generated
NAMED_TOKENS = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}


def build_tokenizer(
    *,
    trained: int,
    known: int,
    max_context: int,
    template: str | None,
    special: Sequence[str] = SPECIAL_TOKENS,
    named: Mapping[str, str] = NAMED_TOKENS,
) -> Any:
    """A BPE of `trained` tokens, `known - trained` fillers, then the added tokens, as published.

    `named`: the special tokens that a family's processor looks up, by the names that it does.
    No text becomes a filler, but a model with a large vocabulary may say it, and it can be shown.
    """
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    vocab, merges = _train_bpe(trained)
    vocab |= {f"Ġw{number}": number for number in range(len(vocab), known)}
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=dict(named),
        model_max_length=max_context,
    )
    special = tuple(dict.fromkeys([*special, *named.values()]))
    tokenizer.add_tokens([AddedToken(text, special=True) for text in special])
    tokenizer.add_tokens([AddedToken(text, special=False) for text in PLAIN_TOKENS])
    tokenizer.chat_template = template
    return tokenizer


def _train_bpe(size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Train on text that is always there: the source of transformers' generation package."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    texts = sorted((Path(transformers.__file__).parent / "generation").glob("*.py"))
    tokenizer.train([str(text) for text in texts], trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    return trained["vocab"], [(left, right) for left, right in trained["merges"]]
