"""A tiny InternVL: its own tower over tiles and frames, Qwen2, parts in the order they came in."""

from __future__ import annotations

from pathlib import Path

from epd.models.random_tokenizer import build_tokenizer
from tests.checkpoints.llava_parts import CONTEXT, TEXT, VISION, ids_of, write

# In the shape of the published one.
CHAT_TEMPLATE = """\
{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '\\n' }}\
{% if message['content'] is string %}\
{{ message['content'] }}\
{% else %}\
{% for content in message['content'] %}\
{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\\n' }}\
{% elif content['type'] == 'video' %}{{ '<video>\\n' }}\
{% elif content['type'] == 'text' %}{{ content['text'] }}\
{% endif %}\
{% endfor %}\
{% endif %}\
{{ '<|im_end|>\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def build(path: Path) -> Path:
    """Write the checkpoint into the folder `path` and return it."""
    from epd.models.torchvision_shim import prepare_torchvision

    prepare_torchvision()
    from transformers import InternVLConfig, InternVLProcessor, InternVLVideoProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
        GotOcr2ImageProcessorPil,
    )

    tokenizer = build_tokenizer(
        trained=1024, known=1024, max_context=CONTEXT, template=CHAT_TEMPLATE, named=NAMED
    )
    config = InternVLConfig(
        text_config={
            **TEXT,
            "model_type": "qwen2",
            "vocab_size": 1088,
            **ids_of(tokenizer),
        },
        vision_config={**VISION, "image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
        dtype="float32",
    )
    square = {"height": 56, "width": 56}
    processor = InternVLProcessor(
        GotOcr2ImageProcessorPil(size=square, crop_to_patches=True, max_patches=6),
        tokenizer,
        InternVLVideoProcessor(size=square),
        image_seq_length=4,
        chat_template=CHAT_TEMPLATE,
    )
    return write(path, "InternVLForConditionalGeneration", config, processor)
