"""Items whose rows the client computed: the answer is that of the item itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.cluster.given import Given
from tests.corpus.entry import base64_text
from tests.reference import Alone, Reference

FACTS = ("image_grid_thw", "image_sizes", "video_grid_thw", "second_per_grid_ts")


def ready_made(given: Given) -> Given:
    """The same item, sent as the rows that the model's own towers give, and what places them."""

    def sent(reference: Reference) -> dict[str, Any]:
        item = given.seen(reference)
        alone = reference.alone(item)
        name = f"{given.kind}_embeds"
        fields = {name: rows_of(reference, alone), **_facts(alone)}
        inner = {
            field: base64_text(safetensors.torch.save({field: values.contiguous()}))
            for field, values in fields.items()
        }
        return {"type": name, name: inner}

    return Given(given.kind, sent, given.seen)


def _facts(alone: Alone) -> dict[str, torch.Tensor]:
    found = {
        name: torch.as_tensor(alone.tensors[name]).reshape(-1)
        for name in FACTS
        if name in alone.tensors
    }
    if seconds := re.findall(r"<(\d+\.\d) seconds>", alone.text):
        found["timestamps"] = torch.tensor([float(second) for second in seconds])
    return found


@torch.inference_mode()
def rows_of(reference: Reference, alone: Alone) -> torch.Tensor:
    """[rows, width] of one item, deeper levels behind the first."""
    model = reference.model
    if alone.kind == "audio":
        return _audio_rows(model, alone.tensors)
    video = "pixel_values_videos" in alone.tensors
    method = model.get_video_features if video else model.get_image_features
    known = inspect.signature(method).parameters
    found = method(**{n: v for n, v in alone.tensors.items() if n in known}, return_dict=True)
    rows = found.pooler_output
    rows = torch.cat(list(rows)) if isinstance(rows, list | tuple) else rows.flatten(0, -2)
    deeper = getattr(found, "deepstack_features", None) or ()
    return torch.cat([rows, *(torch.cat(list(level)) for level in deeper)], dim=1)


def _audio_rows(model: Any, tensors: dict[str, Any]) -> torch.Tensor:
    """Qwen2-Audio has no method for it, so the merge of its forward is watched."""
    if hasattr(model, "get_audio_features"):
        features = tensors["input_features"], tensors["feature_attention_mask"]
        rows: torch.Tensor = model.get_audio_features(*features).last_hidden_state
        return rows
    merged: list[torch.Tensor] = []

    def watch(rows: torch.Tensor) -> torch.Tensor:
        merged.append(rows)
        return rows

    with merging(watch):
        num = int(
            model.model.audio_tower._get_feat_extract_output_lengths(
                tensors["feature_attention_mask"].sum(-1)
            )[1]
        )
        model(torch.full((1, num), model.config.audio_token_id), **tensors)
    return merged[0]


@contextmanager
def merging(change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Inside, every model merges changed rows with its text: all of them do it in one way."""
    scatter = torch.Tensor.masked_scatter

    def changed(embeds: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return scatter(embeds, mask, change(rows))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "masked_scatter", changed)
        yield
