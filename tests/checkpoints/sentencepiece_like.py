"""A tokenizer as Llama's: spaces become part of words, bytes are the last resort, BOS comes first.

Trained offline, on text that is always there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPECIAL = ("<unk>", "<s>", "</s>")
SIZE = 1024


def build_tokenizer(named: Mapping[str, str], *, template: str, max_context: int) -> Any:
    """`named`: the special tokens that the family's processor looks up, behind the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab, merges = _train()
    plain = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    plain.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    plain.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    plain.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    plain.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=dict(named),
        model_max_length=max_context,
    )
    tokenizer.chat_template = template
    return tokenizer


def _train() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Special tokens, the 256 bytes, then what was learned."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=SIZE, limit_alphabet=128, show_progress=False)
    texts = sorted((Path(transformers.__file__).parent / "generation").glob("*.py"))
    learner.train([str(text) for text in texts], trainer)
    learned = json.loads(learner.to_str())["model"]
    first = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    words = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    vocab = {word: i for i, word in enumerate([*first, *words])}
    return vocab, [(left, right) for left, right in learned["merges"]]
