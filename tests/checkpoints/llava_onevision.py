"""A tiny LLaVA-OneVision: SigLIP's tower over tiles and frames, Qwen2."""

from __future__ import annotations

from pathlib import Path

from epd.models.random_tokenizer import build_tokenizer
from tests.checkpoints.llava_parts import CONTEXT, TEXT, VISION, ids_of, write

# In the shape of the published one: pictures, then videos, then text.
CHAT_TEMPLATE = """\
{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + ' ' }}\
{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}\
{{ '<image>' }}\
{% endfor %}\
{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}\
{{ '<video>' }}\
{% endfor %}\
{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}\
{{ '\\n' + content['text'] }}\
{% endfor %}\
{{ '<|im_end|>' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

PINPOINTS = [[56 * height, 56 * width] for height in (1, 2, 3) for width in (1, 2, 3)]


def build(path: Path) -> Path:
    """Write the checkpoint into the folder `path` and return it."""
    from epd.models.torchvision_shim import prepare_torchvision

    prepare_torchvision()
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    tokenizer = build_tokenizer(
        trained=1024,
        known=1024,
        max_context=CONTEXT,
        template=CHAT_TEMPLATE,
        named={"image_token": "<image>", "video_token": "<video>"},
    )
    config = LlavaOnevisionConfig(
        text_config={
            **TEXT,
            "model_type": "qwen2",
            "vocab_size": 1088,
            **ids_of(tokenizer),
        },
        # Five patches along a side: pooled by two, a frame's rows are an odd number of its own.
        vision_config={
            **VISION,
            "model_type": "siglip_vision_model",
            "image_size": 56,
            "patch_size": 11,
            "vision_use_head": False,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
        dtype="float32",
    )
    square = {"height": 56, "width": 56}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=PINPOINTS),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=square),
        num_image_tokens=25,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        vision_aspect_ratio="anyres_max_4",
    )
    return write(path, "LlavaOnevisionForConditionalGeneration", config, processor)
