"""A tiny LLaVA-1.5: CLIP's tower, Llama, a tokenizer with BOS, pictures before all text."""

from __future__ import annotations

from pathlib import Path

from tests.checkpoints.llava_parts import CLIP, CONTEXT, TEXT, ids_of, write
from tests.checkpoints.sentencepiece_like import build_tokenizer

# In the shape of the published one: only parts are taken, and every turn's pictures come first.
CHAT_TEMPLATE = """\
{% for message in messages %}\
{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}\
{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}\
{{ '<image>\\n' }}\
{% endfor %}\
{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}\
{{ content['text'] + ' ' }}\
{% endfor %}\
{% endfor %}\
{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""


def build(path: Path) -> Path:
    """Write the checkpoint into the folder `path` and return it."""
    from epd.models.torchvision_shim import prepare_torchvision

    prepare_torchvision()
    from transformers import LlavaConfig, LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    tokenizer = build_tokenizer(
        {"image_token": "<image>"}, template=CHAT_TEMPLATE, max_context=CONTEXT
    )
    config = LlavaConfig(
        text_config={
            **TEXT,
            "model_type": "llama",
            "vocab_size": len(tokenizer) + 7,
            **ids_of(tokenizer),
        },
        vision_config=CLIP,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16,
        dtype="float32",
    )
    images = LlavaImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return write(path, "LlavaForConditionalGeneration", config, processor)
