"""Tokenizer and processor of the embedded model, and the folder that all of it is saved in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from demo import architecture, chatter, wordings
from demo.conversations import SYSTEM, conversation
from demo.patches import DEVIATION, MEAN
from demo.seeds import SEED, lots
from demo.sizes import FRAME_TOKENS, IMAGE_TOKENS, TOKEN

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>"),
    *("<|audio_eos|>", "<|IMAGE|>", "<|vision_bos|>", "<|vision_eos|>", "<|VIDEO|>"),
)
NAMED = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for content in message['content'] -%}
{%- if content['type'] in ('image', 'image_url', 'input_image') or 'image' in content -%}
{{- '<|vision_bos|><|IMAGE|><|vision_eos|>' -}}
{%- elif content['type'] in ('video', 'video_url', 'input_video') or 'video' in content -%}
{{- '<|vision_bos|><|VIDEO|><|vision_eos|>' -}}
{%- elif content['type'] in ('audio', 'audio_url', 'input_audio') or 'audio' in content -%}
{{- '<|audio_bos|><|AUDIO|><|audio_eos|>' -}}
{%- elif 'text' in content -%}
{{- content['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
WORDS = 1014
SOUND_S = 10
HOP = 320


def size(tokens: tuple[int, int]) -> dict[str, int]:
    """The processors' limits, in pixels."""
    least, most = (num * TOKEN * TOKEN for num in tokens)
    return {"shortest_edge": least, "longest_edge": most}


def _corpus() -> Iterator[str]:
    rng = lots("tokenizer")
    for _ in range(1200):
        kind = rng.choice(("picture", "picture", "picture", "clip", "sound", "two", "both", "text"))
        for turn in conversation(kind, rng).turns:
            yield turn.question
            yield turn.answer
        yield rng.choice(SYSTEM)
        yield from ("user\n", "assistant\n", "system\n")
        yield chatter.foreign(rng, media=True)


def build_tokenizer() -> Any:
    """Byte-level BPE with Qwen2's rules, trained on what is said in training."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AddedToken, Qwen2Tokenizer

    letters = pre_tokenizers.ByteLevel.alphabet()
    rules = Qwen2Tokenizer(vocab={c: i for i, c in enumerate(sorted(letters))}, merges=[])
    trained = Tokenizer(models.BPE())
    trained.normalizer = rules.backend_tokenizer.normalizer
    trained.pre_tokenizer = rules.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, initial_alphabet=letters, special_tokens=[], show_progress=False
    )
    trained.train_from_iterator(_corpus(), trainer)
    model = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=NAMED,
        model_max_length=4096,
    )
    tokenizer.add_tokens([AddedToken(word, special=True) for word in SPECIAL])
    return tokenizer


def build_processor(tokenizer: Any) -> Any:
    from transformers import Qwen2_5OmniProcessor, Qwen2VLVideoProcessor, WhisperFeatureExtractor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    cut: dict[str, Any] = {
        "patch_size": TOKEN // 2,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": list(MEAN),
        "image_std": list(DEVIATION),
    }
    return Qwen2_5OmniProcessor(
        Qwen2VLImageProcessorPil(size=size(IMAGE_TOKENS), **cut),
        Qwen2VLVideoProcessor(
            size=size(FRAME_TOKENS),
            cap_pixels_per_frame=False,
            min_frames=8,
            max_frames=8,
            **cut,
        ),
        WhisperFeatureExtractor(
            feature_size=architecture.AUDIO["num_mel_bins"],
            sampling_rate=16_000,
            hop_length=HOP,
            n_fft=512,
            chunk_length=SOUND_S,
            return_attention_mask=True,
        ),
        tokenizer,
        chat_template=TEMPLATE,
    )


def build_model(tokenizer: Any) -> Any:
    """With random weights, the same every time."""
    from transformers import GenerationConfig, Qwen2_5OmniThinkerForConditionalGeneration

    token = tokenizer.convert_tokens_to_ids
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = Qwen2_5OmniThinkerForConditionalGeneration(architecture.config(tokenizer))
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        bos_token_id=token("<|endoftext|>"),
        pad_token_id=token("<|endoftext|>"),
        eos_token_id=[token("<|im_end|>"), token("<|endoftext|>")],
    )
    return model


def save(folder: Path, model: Any, processor: Any) -> None:
    """As transformers loads it, weights in bfloat16. `model` is rounded."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def all_wordings() -> int:
    """How many there are, for the model card."""
    return sum(len(wordings.all_of(key)) for key in wordings.TRAINED)
