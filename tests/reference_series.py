"""The whole model of the tests' own family, asked as transformers asks its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from epd.models.torchvision_shim import prepare_torchvision
from tests import timeseries

TOKEN = "<|series_pad|>"


class SeriesReference:
    """One checkpoint in fp32 on the CPU. Items are values [steps, channels]."""

    def __init__(self, path: Path) -> None:
        timeseries.install()
        prepare_torchvision()
        from transformers import PreTrainedTokenizerFast

        modeling: Any = import_module("patch_series.modeling")
        self._family: Any = import_module("patch_series.family")
        self.model: Any = modeling.PatchSeriesForConditionalGeneration.from_pretrained(path).eval()
        self._tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(path)

    @torch.inference_mode()
    def generate(
        self,
        messages: Sequence[dict[str, Any]],
        items: Sequence[NDArray[np.float32]] = (),
        max_tokens: int = 16,
        asked: Mapping[str, Any] | None = None,
    ) -> tuple[list[int], list[int]]:
        """(prompt ids, new ids), greedy."""
        assert not asked, "nothing can be asked of this family"
        text, *after = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        ).split(TOKEN)
        length = self.model.config.patch_length
        cut = [self._family.cut(item, length) for item in items]
        for (patches, _), rest in zip(cut, after, strict=True):
            text += TOKEN * len(patches) + rest
        ids = torch.tensor([self._tokenizer(text, add_special_tokens=False).input_ids])
        series = [(torch.from_numpy(patches), torch.from_numpy(places)) for patches, places in cut]
        sequence = self.model.generate(
            ids, series=series or None, max_new_tokens=max_tokens, do_sample=False
        )
        found: list[int] = sequence[0].tolist()
        return found[: ids.shape[1]], found[ids.shape[1] :]
