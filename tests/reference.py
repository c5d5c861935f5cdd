"""The answer that epd must give: Hugging Face's whole model, its template, its generate().

Items are processed one at a time (the canonical result) by Hugging Face's own processor, in the
PIL backend, and put side by side. Nothing of epd decides anything here but the torchvision shim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from epd.models.torchvision_shim import prepare_torchvision


class Reference:
    """One checkpoint in fp32 on the CPU."""

    def __init__(self, path: str | Path) -> None:
        prepare_torchvision()
        import transformers

        transformers.utils.logging.disable_progress_bar()
        self.processor: Any = transformers.AutoProcessor.from_pretrained(path)
        self.images: Any = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
        self.model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
            path, dtype=torch.float32
        ).eval()

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """The checkpoint's chat template, one placeholder per picture, ready for an answer."""
        text: str = self.processor.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        return text

    def inputs(
        self, messages: Sequence[dict[str, Any]], images: Sequence[Image.Image] = ()
    ) -> dict[str, torch.Tensor]:
        """What `generate` and `forward` of the whole model take, batch size 1."""
        features = [self.images(images=[image], return_tensors="pt") for image in images]
        text, *after = self.render(messages).split(self.processor.image_token)
        assert len(after) == len(images), "placeholders and pictures must be as many"
        for one, rest in zip(features, after, strict=True):
            text += self.processor.replace_image_token(one, 0) + rest
        ids = self.processor.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        found: dict[str, torch.Tensor] = dict(ids)
        is_image = found["input_ids"] == self.processor.image_token_id
        found["mm_token_type_ids"] = is_image.to(torch.int32)
        for name in ("pixel_values", "image_grid_thw") if features else ():
            found[name] = torch.cat([one[name] for one in features])
        return found

    @torch.inference_mode()
    def generate(
        self,
        messages: Sequence[dict[str, Any]],
        images: Sequence[Image.Image] = (),
        max_tokens: int = 16,
        **sampling: Any,
    ) -> tuple[list[int], list[int]]:
        """(prompt ids, new ids), greedy. The last new id is an eos id if one ended the answer.

        The checkpoint's generation_config gives repetition_penalty and eos ids; `sampling`, in
        generate()'s words, goes before it.
        """
        found = self.inputs(messages, images)
        # Greedy does not look at these, but generate() warns where they are set beside it.
        unused = {"temperature": None, "top_p": None, "top_k": None}
        options = {"do_sample": False, "max_new_tokens": max_tokens, **unused, **sampling}
        sequence = self.model.generate(**found, **options)[0].tolist()
        num_prompt = found["input_ids"].shape[1]
        return sequence[:num_prompt], sequence[num_prompt:]
