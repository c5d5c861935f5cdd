"""Tiny Qwen-Omni thinkers, as folders of their own and inside the whole model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from epd.models.torchvision_shim import prepare_torchvision
from tests.checkpoints.sound import TEXT, TOWER, extractor, save, tokenizer

SECONDS = 8
"""How much of a sound Qwen2.5-Omni listens to."""

NAMED_2_5 = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
NAMED_3 = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "audio_token": "<|audio_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}

# The shape of the published templates: three ways to recognise each kind, a default system turn.
TEMPLATE = """\
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a small model that has not been trained.<|im_end|>\\n' -}}
{%- endif -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for content in message['content'] -%}
{%- if content['type'] == 'image' or 'image' in content or 'image_url' in content -%}
{{- 'vision_bos_token' + 'image_token' + 'vision_eos_token' -}}
{%- elif content['type'] == 'audio' or 'audio' in content or 'audio_url' in content -%}
{{- 'audio_bos_token' + 'audio_token' + 'audio_eos_token' -}}
{%- elif content['type'] == 'video' or 'video' in content -%}
{{- 'vision_bos_token' + 'video_token' + 'vision_eos_token' -}}
{%- elif 'text' in content -%}
{{- content['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

VISION = {
    "depth": 4,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "initializer_range": 0.15,
}


def build_2_5(path: Path) -> Path:
    """Qwen2.5-Omni's thinker."""
    prepare_torchvision()
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
    )

    words = tokenizer(tuple(NAMED_2_5.values()), NAMED_2_5)
    token = words.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    config = Qwen2_5OmniThinkerConfig(
        text_config={"rope_parameters": rope, **TEXT},
        vision_config={
            **VISION,
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [1, 3],
        },
        audio_config={**TOWER, "output_dim": 64, "n_window": 25},
        image_token_index=token("<|IMAGE|>"),
        video_token_index=token("<|VIDEO|>"),
        audio_token_index=token("<|AUDIO|>"),
        audio_start_token_id=token("<|audio_bos|>"),
        audio_end_token_id=token("<|audio_eos|>"),
        vision_start_token_id=token("<|vision_bos|>"),
        vision_end_token_id=token("<|vision_eos|>"),
    )
    processor = _processor(Qwen2_5OmniProcessor, words, NAMED_2_5, patch=14, seconds=SECONDS)
    return save(Qwen2_5OmniThinkerForConditionalGeneration, config, processor, path)


def build_3(path: Path, *, inside: int = 48) -> Path:
    """Qwen3-Omni-MoE's thinker. `inside`: the width of an expert."""
    prepare_torchvision()
    from transformers import (
        Qwen3OmniMoeProcessor,
        Qwen3OmniMoeThinkerConfig,
        Qwen3OmniMoeThinkerForConditionalGeneration,
    )

    words = tokenizer(tuple(NAMED_3.values()), NAMED_3)
    token = words.convert_tokens_to_ids
    rope = {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [7, 5, 4],
        "mrope_interleaved": True,
    }
    experts = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": inside}
    config = Qwen3OmniMoeThinkerConfig(
        text_config={"rope_parameters": rope, "head_dim": 32, **experts, **TEXT},
        vision_config={
            **VISION,
            "patch_size": 16,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [1, 2],
        },
        audio_config={
            **TOWER,
            "output_dim": 64,
            "downsample_hidden_size": 16,
            "n_window_infer": 200,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        audio_token_id=token("<|audio_pad|>"),
        audio_start_token_id=token("<|audio_start|>"),
        vision_start_token_id=token("<|vision_start|>"),
        position_id_per_seconds=13,
    )
    processor = _processor(Qwen3OmniMoeProcessor, words, NAMED_3, patch=16, seconds=30)
    return save(Qwen3OmniMoeThinkerForConditionalGeneration, config, processor, path)


def _processor(
    processor_class: Any, words: Any, named: dict[str, str], *, patch: int, seconds: int
) -> Any:
    from transformers import Qwen2VLVideoProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    template = TEMPLATE
    for name, text in named.items():
        template = template.replace(f"'{name}'", f"'{text}'")
    token = (2 * patch) ** 2
    settings = {"patch_size": patch, "temporal_patch_size": 2, "merge_size": 2}
    size = {"shortest_edge": 4 * token, "longest_edge": 64 * token}
    return processor_class(
        Qwen2VLImageProcessorPil(**settings, size=size | {"longest_edge": 256 * token}),
        Qwen2VLVideoProcessor(**settings, size=size, cap_pixels_per_frame=False),
        extractor(seconds),
        words,
        chat_template=template,
    )


def enclose(thinker: Path, path: Path, *, family: str) -> Path:
    """The whole model's folder around a thinker's: as published, less what a thinker never sees.

    Neither of talker and vocoder is of a shape that anything could load; the processor's settings
    are one flat file, which says nothing of videos; no file names an end-of-answer token.
    """
    import torch
    from safetensors.torch import load_file, save_file

    path.mkdir(parents=True)
    voice = {"qwen2_5_omni": "token2wav", "qwen3_omni_moe": "code2wav"}[family]
    config = json.loads((thinker / "config.json").read_text())
    whole = {
        "architectures": [_WHOLE[family]],
        "model_type": family,
        "enable_audio_output": True,
        "thinker_config": config,
        "talker_config": {"model_type": f"{family}_talker", "hidden_size": 8},
        f"{voice}_config": {"model_type": f"{family}_{voice}"},
    }
    _write(path / "config.json", whole)
    heard = {f"thinker.{name}": weight for name, weight in _weights(thinker, load_file).items()}
    said = {
        "talker.model.layers.0.self_attn.q_proj.weight": torch.ones(8, 8, dtype=torch.bfloat16),
        "talker.thinker_to_talker_proj.weight": torch.ones(8, 64, dtype=torch.bfloat16),
        f"{voice}.decoder.visual.weight": torch.ones(3, 5),
    }
    save_file(heard, path / "model-00002-of-00002.safetensors", metadata={"format": "pt"})
    save_file(said, path / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    places = dict.fromkeys(heard, "model-00002-of-00002.safetensors")
    places |= dict.fromkeys(said, "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": places}
    _write(path / "model.safetensors.index.json", index)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (path / name).write_bytes((thinker / name).read_bytes())
    settings = json.loads((thinker / "processor_config.json").read_text())
    flat = settings["image_processor"] | settings["feature_extractor"]
    _write(path / "preprocessor_config.json", flat | {"processor_class": _PROCESSOR[family]})
    _write(path / "generation_config.json", {"talker_max_new_tokens": 4096})
    return path


def build_inside(path: Path, *, family: str) -> Path:
    """The whole model's folder; the thinker's own is beside it, under THINKER."""
    thinker = {"qwen2_5_omni": build_2_5, "qwen3_omni_moe": build_3}[family]
    return enclose(thinker(path.parent / THINKER), path, family=family)


THINKER = "thinker"
_WHOLE = {
    "qwen2_5_omni": "Qwen2_5OmniModel",
    "qwen3_omni_moe": "Qwen3OmniMoeForConditionalGeneration",
}
_PROCESSOR = {"qwen2_5_omni": "Qwen2_5OmniProcessor", "qwen3_omni_moe": "Qwen3OmniMoeProcessor"}


def _weights(folder: Path, load_file: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2))
