"""Builds a small Qwen2.5-VL checkpoint with random weights, offline and reproducibly.

It has every file of a published one (configuration, weights, tokenizer, chat template, processor,
generation defaults) and loads through the ordinary `from_pretrained`. Its answers are gibberish:
it stands in until a trained model is given, and tests use it to compare implementations.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epd.models.torchvision_shim import prepare_torchvision

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

# The shape of the published template: a default system turn, counted pictures, three ways to
# recognise one, text parts, and a switch that numbers the pictures.
CHAT_TEMPLATE = """\
{%- set pictures = namespace(seen=0) -%}
{%- set clips = namespace(seen=0) -%}
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a small model that has not been trained.<|im_end|>\\n' -}}
{%- endif -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for content in message['content'] -%}
{%- if 'image' in content or 'image_url' in content or content['type'] == 'image' -%}
{%- set pictures.seen = pictures.seen + 1 -%}
{%- if add_vision_id -%}{{- 'Picture ' ~ pictures.seen ~ ': ' -}}{%- endif -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif 'video' in content or content['type'] == 'video' -%}
{%- set clips.seen = clips.seen + 1 -%}
{%- if add_vision_id -%}{{- 'Video ' ~ clips.seen ~ ': ' -}}{%- endif -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif 'text' in content -%}
{{- content['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the model is. The defaults give about half a million parameters."""

    hidden: int = 64
    intermediate: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    vision_hidden: int = 32
    vision_intermediate: int = 64
    vision_layers: int = 4
    vision_heads: int = 2
    merges: int = 1024
    vocab: int = 1088
    max_context: int = 8192
    max_image_tokens: int = 256
    tied: bool = False


TINY = Sizes()


def build_random_checkpoint(path: str | Path, *, sizes: Sizes = TINY, seed: int = 0) -> Path:
    """Write the checkpoint into the folder `path` and return it. Equal arguments, equal files."""
    prepare_torchvision()
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration
    from transformers.utils import logging

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(_config(sizes, tokenizer))
    model.generation_config = _generation_config(tokenizer)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    _processor(sizes, tokenizer).save_pretrained(folder)
    return folder


def _tokenizer(sizes: Sizes) -> Any:
    """A byte-level BPE whose added tokens follow the merges, as in the published vocabulary."""
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    vocab, merges = _train_bpe(sizes.merges)
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=NAMED_TOKENS,
        model_max_length=sizes.max_context,
    )
    tokenizer.add_tokens([AddedToken(text, special=True) for text in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, special=False) for text in PLAIN_TOKENS])
    tokenizer.chat_template = CHAT_TEMPLATE
    assert len(tokenizer) <= sizes.vocab
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


def _config(sizes: Sizes, tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": sizes.vocab,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "max_position_embeddings": sizes.max_context,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": _mrope_section(sizes.hidden // sizes.heads // 2),
        },
        # Far above the usual 0.02, so that what the random model says depends on its input.
        "initializer_range": 0.15,
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
        "tie_word_embeddings": sizes.tied,
    }
    vision = {
        "depth": sizes.vision_layers,
        "hidden_size": sizes.vision_hidden,
        "intermediate_size": sizes.vision_intermediate,
        "num_heads": sizes.vision_heads,
        "patch_size": 14,
        "window_size": 56,
        "fullatt_block_indexes": list(range(1, sizes.vision_layers, 2)),
        "out_hidden_size": sizes.hidden,
        "initializer_range": 0.15,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=sizes.tied,
        dtype="float32",
    )


def _mrope_section(frequencies: int) -> list[int]:
    """How many rotary frequencies turn with time, height and width: 2:3:3, as published."""
    height = width = frequencies * 3 // 8
    return [frequencies - height - width, height, width]


def _generation_config(tokenizer: Any) -> Any:
    """Sampling defaults as published models set them, with two ids that end an answer."""
    from transformers import GenerationConfig

    token = tokenizer.convert_tokens_to_ids
    return GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        repetition_penalty=1.05,
        bos_token_id=token("<|endoftext|>"),
        pad_token_id=token("<|endoftext|>"),
        eos_token_id=[token("<|im_end|>"), token("<|endoftext|>")],
    )


def _processor(sizes: Sizes, tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLVideoProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    pixels = {"shortest_edge": 4 * 28 * 28, "longest_edge": sizes.max_image_tokens * 28 * 28}
    patches = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessorPil(size=pixels, **patches),
        tokenizer,
        Qwen2VLVideoProcessor(size=pixels, **patches),
        chat_template=CHAT_TEMPLATE,
    )
