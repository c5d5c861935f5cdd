"""The whole model's forward for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from demo.collate import NO_LABEL, Batch, Heard
from demo.hearing import hear
from demo.patches import Patches
from demo.sight import see

_FAR = -1e9
_ROUND = 128  # rows that are learnt come in multiples of it: few shapes of matrices are faster


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What the towers make of a batch: `pictures` and `frames` [grids, tokens, hidden], `sounds`
    [rows of all, hidden]."""

    pictures: torch.Tensor
    frames: torch.Tensor
    sounds: torch.Tensor


def perceived(model: Any, batch: Batch) -> Rows:
    tower = model.model.visual
    parts = (batch.pictures, batch.frames)
    pictures, frames = (see(tower, p) if len(p.pixels) else _nothing(model, p) for p in parts)
    return Rows(pictures=pictures, frames=frames, sounds=heard(model, batch.heard))


def _nothing(model: Any, none: Patches) -> torch.Tensor:
    hidden = model.config.text_config.hidden_size
    return torch.zeros(0, none.pixels.shape[1] // 4, hidden)


def hidden_states(model: Any, batch: Batch, rows: Rows) -> torch.Tensor:
    """The language model's last, [rows, length, hidden]."""
    language = model.model.language_model
    embedded = language.embed_tokens(batch.ids)
    flat, ids = embedded.flatten(0, 1), batch.ids.flatten()
    parts = (
        (model.config.image_token_id, rows.pictures[batch.pictures.known[:, ::4]]),
        (model.config.video_token_id, rows.frames[batch.frames.known[:, ::4]]),
        (model.config.audio_token_id, rows.sounds),
    )
    where = torch.cat([(ids == token).nonzero()[:, 0] for token, _ in parts])
    flat = flat.index_copy(0, where, torch.cat([found for _, found in parts]))
    found: torch.Tensor = language(
        inputs_embeds=flat.view_as(embedded),
        position_ids=batch.positions,
        attention_mask={"full_attention": mask(batch.branch)},
        use_cache=False,
    ).last_hidden_state
    return found


def heard(model: Any, sounds: Heard) -> torch.Tensor:
    """Rows of all sounds."""
    if not len(sounds.lengths):
        return torch.zeros(0, model.config.text_config.hidden_size)
    return hear(model.model.audio_tower, sounds.features, sounds.lengths)


def mask(branch: torch.Tensor) -> torch.Tensor:
    """[rows, 1, length, length] to add: each turn sees itself and what comes first."""
    length = branch.shape[1]
    mine, other = branch[:, :, None], branch[:, None, :]
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    allowed = allowed & ((other == 0) | (other == mine))
    return torch.zeros(allowed.shape).masked_fill(~allowed, _FAR)[:, None]


def answers(
    model: Any, batch: Batch, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each learnt token: its loss, whether it is the likeliest, and which row it is in."""
    told = batch.labels[:, 1:].flatten()
    learnt = (told != NO_LABEL).nonzero()[:, 0]
    picked = hidden[:, :-1].flatten(0, 1)[learnt]
    num = len(learnt)
    logits = model.lm_head(F.pad(picked, (0, 0, 0, -num % _ROUND)))[:num]
    loss = F.cross_entropy(logits, told[learnt], reduction="none")
    right = logits.argmax(-1) == told[learnt]
    return loss, right, learnt // (batch.ids.shape[1] - 1)
