"""Builds checkpoints with random weights, offline and reproducibly, for each family.

They have every file of a published one (configuration, weights, tokenizer, chat template,
processor, generation defaults) and load through the ordinary `from_pretrained`. Their answers are
gibberish: they stand in until a trained model is given, tests compare implementations with them,
and benchmarks need only their sizes.

    python -m epd.models.random_checkpoint FOLDER --size half-billion --family qwen2_5_vl
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epd.models.random_tokenizer import build_tokenizer
from epd.models.torchvision_shim import prepare_torchvision

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

# With norms of 1 over queries and keys, attention is nearly even, and Qwen3-VL's answers fall into
# the same few words whatever the prompt is.
HEAD_NORM = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the model is. The defaults give about half a million parameters.

    `head_dim` and `deepstack_levels` are Qwen3-VL's alone, where a head need not be
    hidden / heads wide; the window and `full_attention_every` are Qwen2.5-VL's.
    """

    hidden: int = 64
    intermediate: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int | None = None
    vision_hidden: int = 32
    vision_intermediate: int = 64
    vision_layers: int = 4
    vision_heads: int = 2
    window: int = 56
    full_attention_every: int = 2
    deepstack_levels: int = 3
    trained_tokens: int = 1024
    known_tokens: int = 1024
    vocab: int = 1088
    max_context: int = 8192
    max_image_tokens: int = 256
    tied: bool = False
    dtype: str = "float32"
    # Far above the usual 0.02, so that what the random model says depends on its input.
    initializer_range: float = 0.15


TINY = Sizes()

HALF_BILLION = Sizes(
    hidden=896,
    intermediate=4864,
    layers=24,
    heads=14,
    kv_heads=2,
    vision_hidden=768,
    vision_intermediate=3072,
    vision_layers=12,
    vision_heads=12,
    window=112,
    full_attention_every=4,
    trained_tokens=8192,
    known_tokens=151_643,
    vocab=151_936,
    max_context=32_768,
    max_image_tokens=16_384,
    tied=True,
    dtype="bfloat16",
    initializer_range=0.02,
)
"""The language half has the shape of Qwen2.5-0.5B."""

THIRTY_MILLION = Sizes(
    hidden=512,
    intermediate=2048,
    layers=8,
    heads=8,
    initializer_range=0.02,
)
"""Large enough that what a prefill takes is mostly products of matrices."""

SIZES = {"tiny": TINY, "thirty-million": THIRTY_MILLION, "half-billion": HALF_BILLION}


def build_random_checkpoint(
    path: str | Path, *, family: str = "qwen2_5_vl", sizes: Sizes = TINY, seed: int = 0
) -> Path:
    """Write the checkpoint into the folder `path` and return it. Equal arguments, equal files."""
    if family not in _FAMILIES:
        raise ValueError(f"no random checkpoint for family {family!r}; there is: {_NAMES}")
    prepare_torchvision()
    import torch
    import transformers
    from transformers.utils import logging

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    parts = _FAMILIES[family]
    tokenizer = build_tokenizer(
        trained=sizes.trained_tokens,
        known=sizes.known_tokens,
        max_context=sizes.max_context,
        template=CHAT_TEMPLATE,
    )
    assert len(tokenizer) <= sizes.vocab
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, parts.architecture)._from_config(
            parts.config(sizes, tokenizer), dtype=getattr(torch, sizes.dtype)
        )
    for name, weight in model.named_parameters():
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            torch.nn.init.constant_(weight, HEAD_NORM)
    model.generation_config = _generation_config(tokenizer)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    parts.processor(sizes, tokenizer).save_pretrained(folder)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    architecture: str
    config: Callable[[Sizes, Any], Any]
    processor: Callable[[Sizes, Any], Any]


def _qwen2_5_vl_config(sizes: Sizes, tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    every = sizes.full_attention_every
    vision = {
        "patch_size": 14,
        "window_size": sizes.window,
        "tokens_per_second": 2,
        "fullatt_block_indexes": list(range(every - 1, sizes.vision_layers, every)),
    }
    frequencies = sizes.hidden // sizes.heads // 2
    height = width = frequencies * 3 // 8  # 2:3:3, as published
    text = _text(sizes, tokenizer, [frequencies - height - width, height, width])
    return Qwen2_5_VLConfig(
        text_config=text, vision_config=vision | _vision(sizes), **_whole(sizes, tokenizer)
    )


def _qwen3_vl_config(sizes: Sizes, tokenizer: Any) -> Any:
    from transformers import Qwen3VLConfig

    levels = sizes.deepstack_levels
    vision = {
        "patch_size": 16,
        "deepstack_visual_indexes": [
            sizes.vision_layers * level // (levels + 1) for level in range(1, levels + 1)
        ],
    }
    head_dim = sizes.head_dim or sizes.hidden // sizes.heads
    # All different (published: 6:5:5), so that a mistaken axis is noticed.
    height, width = head_dim // 2 * 5 // 16, head_dim // 2 * 4 // 16
    text = _text(sizes, tokenizer, [head_dim // 2 - height - width, height, width])
    text["head_dim"] = head_dim
    text["rope_parameters"]["mrope_interleaved"] = True
    return Qwen3VLConfig(
        text_config=text, vision_config=vision | _vision(sizes), **_whole(sizes, tokenizer)
    )


def _text(sizes: Sizes, tokenizer: Any, mrope_section: list[int]) -> dict[str, Any]:
    """`mrope_section`: how many rotary frequencies turn with time, height and width."""
    token = tokenizer.convert_tokens_to_ids
    return {
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
            "mrope_section": mrope_section,
        },
        "initializer_range": sizes.initializer_range,
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
        "tie_word_embeddings": sizes.tied,
    }


def _vision(sizes: Sizes) -> dict[str, Any]:
    return {
        "depth": sizes.vision_layers,
        "hidden_size": sizes.vision_hidden,
        "intermediate_size": sizes.vision_intermediate,
        "num_heads": sizes.vision_heads,
        "out_hidden_size": sizes.hidden,
        "initializer_range": sizes.initializer_range,
    }


def _whole(sizes: Sizes, tokenizer: Any) -> dict[str, Any]:
    token = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": sizes.tied,
        "dtype": sizes.dtype,
    }


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


def _qwen2_5_vl_processor(sizes: Sizes, tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLVideoProcessor

    settings = _pictures(sizes, patch=14)
    return Qwen2_5_VLProcessor(
        _image_processor(settings),
        tokenizer,
        Qwen2VLVideoProcessor(**settings | _clips(sizes.max_image_tokens // 4, patch=14)),
        chat_template=CHAT_TEMPLATE,
    )


def _qwen3_vl_processor(sizes: Sizes, tokenizer: Any) -> Any:
    from transformers import Qwen3VLProcessor, Qwen3VLVideoProcessor

    half = [0.5, 0.5, 0.5]
    settings = _pictures(sizes, patch=16) | {"image_mean": half, "image_std": half}
    return Qwen3VLProcessor(
        _image_processor(settings),
        tokenizer,
        # this one's limits are of all frames together
        Qwen3VLVideoProcessor(**settings | _clips(2 * sizes.max_image_tokens, patch=16)),
        chat_template=CHAT_TEMPLATE,
    )


def _pictures(sizes: Sizes, patch: int) -> dict[str, Any]:
    token = (2 * patch) ** 2  # pixels that become one token
    return {
        "size": {"shortest_edge": 4 * token, "longest_edge": sizes.max_image_tokens * token},
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }


def _clips(tokens: int, patch: int) -> dict[str, Any]:
    """Settings of videos where they differ from pictures'."""
    token = (2 * patch) ** 2
    return {
        "size": {"shortest_edge": 4 * token, "longest_edge": tokens * token},
        "cap_pixels_per_frame": False,
    }


def _image_processor(settings: dict[str, Any]) -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(**settings)


_FAMILIES = {
    "qwen2_5_vl": _Family(
        architecture="Qwen2_5_VLForConditionalGeneration",
        config=_qwen2_5_vl_config,
        processor=_qwen2_5_vl_processor,
    ),
    "qwen3_vl": _Family(
        architecture="Qwen3VLForConditionalGeneration",
        config=_qwen3_vl_config,
        processor=_qwen3_vl_processor,
    ),
}
_NAMES = ", ".join(_FAMILIES)


def main() -> None:
    """The command in this module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=_FAMILIES, default="qwen2_5_vl")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    build_random_checkpoint(args.folder, family=args.family, sizes=SIZES[args.size], seed=args.seed)


if __name__ == "__main__":
    main()
