"""A family from outside, registered by an installed package: time series before a Qwen2 model.

`PLUGIN` is what a `pip install` would have put on the path, package and metadata. `install` puts it
on this process's path, `environment` on that of its children.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

PLUGIN = Path(__file__).parent / "plugin"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for content in message['content'] -%}
{%- if content['type'] == 'time_series' -%}
{{- '<|vision_start|><|series_pad|><|vision_end|>' -}}
{%- elif 'text' in content -%}
{{- content['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def install() -> None:
    """As if the package were installed beside epd."""
    from epd.models.families import families

    if str(PLUGIN) not in sys.path:
        sys.path.append(str(PLUGIN))
        families.cache_clear()


def environment() -> dict[str, str]:
    """What child processes need to find it."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {"PYTHONPATH": os.pathsep.join([*paths, str(PLUGIN)])}


def build(path: Path) -> Path:
    """Write a tiny random checkpoint of the family into the folder `path` and return it."""
    install()
    from epd.models.random_tokenizer import build_tokenizer
    from epd.models.torchvision_shim import prepare_torchvision

    prepare_torchvision()
    import torch
    from tokenizers import AddedToken
    from transformers import GenerationConfig
    from transformers.utils import logging

    modeling: Any = import_module("patch_series.modeling")
    tokenizer = build_tokenizer(trained=1024, known=1024, max_context=8192, template=CHAT_TEMPLATE)
    tokenizer.add_tokens([AddedToken("<|series_pad|>", special=True)])
    token = tokenizer.convert_tokens_to_ids
    ids = {
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }
    text = {
        "vocab_size": 1088,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "initializer_range": 0.15,
        **ids,
    }
    config = modeling.PatchSeriesConfig(
        text_config=text,
        series_token_id=token("<|series_pad|>"),
        initializer_range=0.3,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = modeling.PatchSeriesForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        **{**ids, "eos_token_id": [ids["eos_token_id"], ids["bos_token_id"]]}
    )
    logging.disable_progress_bar()
    path.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
