"""A tiny LLaVA-NeXT: CLIP's tower over tiles, Mistral without a window, a tokenizer with BOS."""

from __future__ import annotations

from pathlib import Path

from tests.checkpoints.llava_parts import CLIP, CONTEXT, TEXT, ids_of, write
from tests.checkpoints.sentencepiece_like import build_tokenizer

# In the shape of the published one for Mistral.
CHAT_TEMPLATE = """\
{% for message in messages %}\
{% if message['role'] == 'system' %}\
{{ '<<SYS>>\\n' + message['content'][0]['text'] + '\\n<</SYS>>\\n\\n' }}\
{% elif message['role'] == 'user' %}\
{{ '[INST] ' }}\
{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}\
{{ '<image>\\n' }}\
{% endfor %}\
{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}\
{{ content['text'] }}\
{% endfor %}\
{{ ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}\
{{ ' ' + message['content'][0]['text'] + '</s> ' }}\
{% endif %}\
{% endfor %}"""

PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]


def build(path: Path) -> Path:
    """Write the checkpoint into the folder `path` and return it."""
    from epd.models.torchvision_shim import prepare_torchvision

    prepare_torchvision()
    from transformers import LlavaNextConfig, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    tokenizer = build_tokenizer(
        {"image_token": "<image>"}, template=CHAT_TEMPLATE, max_context=CONTEXT
    )
    config = LlavaNextConfig(
        text_config={
            **TEXT,
            "model_type": "mistral",
            "sliding_window": None,
            "vocab_size": len(tokenizer) + 7,
            **ids_of(tokenizer),
        },
        vision_config=CLIP,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16,
        dtype="float32",
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=PINPOINTS,
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return write(path, "LlavaNextForConditionalGeneration", config, processor)
