"""Writes checkpoint folders without weights: configuration, tokenizer and template only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from epd.models.family import EmbedsField
from epd.models.random_checkpoint import CHAT_TEMPLATE
from epd.models.spec import Checkpoint, read_checkpoint
from epd.types import Modality

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PLAIN = ("<think>", "</think>")
PLACEHOLDERS = {
    Modality.IMAGE: "<|image_pad|>",
    Modality.VIDEO: "<|video_pad|>",
    Modality.AUDIO: "<|AUDIO|>",
    Modality.TIME_SERIES: "<|series_pad|>",
}
CORPUS = (
    "the quick brown fox jumps over the lazy dog and the picture shows a small house",
    "user assistant system image picture number 0123456789 im_end im_start vision pad",
    "def render(messages): return [message for message in messages if message]",
)

STRING_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + (m['content'] | trim) }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
PARTS_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] if c['type'] == 'image' %}<|image_pad|>\n{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
EVERY_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|image_pad|>{% elif c['type'] == 'video' %}<|video_pad|>"
    "{% elif c['type'] == 'audio' %}Audio: <|AUDIO|>\n"
    "{% elif c['type'] == 'time_series' %}<|series_pad|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
"""All modalities, in the order of the chat."""

TOOLS_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nCall these: <tools>{% for tool in tools %}\n"
    "{{ tool | tojson }}{% endfor %}\n</tools> as <tool_call>\n"
    '{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n{% endif %}'
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n"
    "{{ m.content }}\n</tool_response>{% else %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}{% endif %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if thinking is not defined or thinking %}<think>\n{% endif %}"
)
"""Shows tools, calls and what they gave as Qwen's templates do, and opens reasoning, too."""


def byte_level_bpe(plain: Sequence[str] = PLAIN) -> Tokenizer:
    """Shaped like Qwen's: NFC, byte-level BPE, added tokens after the merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=True) for text in plain])
    return tokenizer


def byte_fallback_bpe() -> Tokenizer:
    """Shaped like Llama's: spaces as U+2581, bytes as <0xNN>, specials inside the vocabulary."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "<image>": 3}
    vocab |= {f"<0x{byte:02X}>": 4 + byte for byte in range(256)}
    for character in ["\u2581", *map(chr, range(33, 127))]:
        vocab[character] = len(vocab)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ("<unk>", "<s>", "</s>")]
    )
    tokenizer.add_tokens([AddedToken("<image>", special=False, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def write_folder(
    path: Path,
    *,
    tokenizer: Tokenizer | None = None,
    template: str = CHAT_TEMPLATE,
    named: dict[str, str] | None = None,
    generation: dict[str, Any] | None = None,
    max_context: int = 4096,
) -> Checkpoint:
    """What the gateway reads of a checkpoint, and nothing else."""
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or byte_level_bpe()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **(named or {"eos_token": "<|im_end|>"})
    )
    fast.chat_template = template
    fast.save_pretrained(path)
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": max_context,
        "dtype": "float32",
    }
    (path / "config.json").write_text(json.dumps(config))
    eos = tokenizer.token_to_id("<|im_end|>")
    defaults = {"eos_token_id": [eos, eos - 2] if eos is not None else 2, **(generation or {})}
    (path / "generation_config.json").write_text(json.dumps(defaults))
    return read_checkpoint(path)


def write_every_modality(path: Path, **changes: Any) -> Checkpoint:
    """A model that takes all there is; `changes` of its family."""
    tokenizer = byte_level_bpe()
    more = ("<|AUDIO|>", "<|series_pad|>")
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in more])
    checkpoint = write_folder(path, tokenizer=tokenizer, template=EVERY_TEMPLATE)
    rows, grid = "[rows, width]", "[1, 3]"
    spec = replace(
        checkpoint.spec,
        modalities=tuple(Modality),
        placeholders=PLACEHOLDERS,
        sound_in_video=True,
        processor_options={
            Modality.IMAGE: ("max_pixels", "min_pixels", "size", "crop_to_patches", "max_patches"),
            Modality.VIDEO: ("max_pixels", "min_pixels", "size"),
        },
        embeds={
            Modality.IMAGE: (
                EmbedsField(name="image_embeds", shape=rows),
                EmbedsField(name="image_grid_thw", shape=grid, dtype="int"),
                EmbedsField(name="image_sizes", shape="[1, 2]", dtype="int", required=False),
            ),
            Modality.AUDIO: (EmbedsField(name="audio_embeds", shape=rows),),
            Modality.VIDEO: (
                EmbedsField(name="video_embeds", shape=rows),
                EmbedsField(name="video_grid_thw", shape=grid, dtype="int"),
            ),
        },
    )
    return replace(checkpoint, spec=replace(spec, **changes))
