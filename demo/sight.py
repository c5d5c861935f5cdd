"""The vision tower's forward for training: all grids at once, padded to one length.

transformers runs its attention picture by picture and embeds patches by a 3D convolution. The sums
are the same here, see tests/demo/test_sight.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import rotate_half

from demo.attention import attended
from demo.compiling import compiled
from demo.labels import SHOWN, UNSURE
from demo.patches import Patches

_FAR = -1e9
_BARE = 0.12  # how much a token without a shape weighs


def see(tower: Any, patches: Patches) -> torch.Tensor:
    """Rows [grids, tokens, hidden] of all tokens, padding among them. All layers attend fully."""
    hidden = _embedded(tower.patch_embed, patches.pixels)
    num, length, _ = hidden.shape
    cos, sin = _rotary(tower.rotary_pos_emb, patches.places)
    bias = torch.zeros(num, 1, 1, length).masked_fill(~patches.known[:, None, None], _FAR)
    for block in tower.blocks:
        hidden = _block(block, hidden, cos, sin, bias)
    rows: torch.Tensor = tower.merger(hidden)
    return rows.view(num, length // 4, -1)


@compiled
def _block(
    block: Any, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    hidden = hidden + _attend(block.attn, block.norm1(hidden), cos, sin, bias)
    out: torch.Tensor = hidden + block.mlp(block.norm2(hidden))
    return out


def _embedded(embed: Any, pixels: torch.Tensor) -> torch.Tensor:
    weight = embed.proj.weight  # [hidden, channel, time, row, column]
    if pixels.shape[-1] * weight.shape[2] == weight[0].numel():  # equal frames, said once
        return F.linear(pixels, weight.sum(2).flatten(1))
    return F.linear(pixels, weight.flatten(1))


def _rotary(rotary: Any, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, [grids, 1, patches, head width]."""
    angles = places[..., None].float() * rotary.inv_freq
    both = torch.cat([angles[:, :, 0], angles[:, :, 1]], -1)
    angle = torch.cat([both, both], -1)[:, None]
    return angle.cos(), angle.sin()


def _attend(
    layer: Any, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    num, length, _ = hidden.shape
    query, key, value = (
        part(hidden).view(num, length, layer.num_heads, -1).transpose(1, 2)
        for part in (layer.q, layer.k, layer.v)
    )
    query = query * cos + rotate_half(query) * sin
    key = key * cos + rotate_half(key) * sin
    found = attended(query, key, value, bias)
    out: torch.Tensor = layer.proj(found.transpose(1, 2).reshape(num, length, -1))
    return out


class Reading(torch.nn.Module):
    """Says of each row what its token shows. Only for training."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(hidden, sum(SHOWN.values()))

    def forward(
        self, rows: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss, and how often each of SHOWN is right where there is a shape."""
        said = self.linear(rows).split(tuple(SHOWN.values()), -1)
        loss, right = torch.zeros(()), {}
        for name, logits, label in zip(SHOWN, said, labels.unbind(-1), strict=True):
            shown = label > 0
            weight = torch.where(shown, 1.0, _BARE) * (label != UNSURE)
            each = F.cross_entropy(logits, label.clamp(min=0), reduction="none")
            loss = loss + (each * weight).sum() / weight.sum().clamp(min=1.0)
            right[name] = float((logits.argmax(-1) == label)[shown].float().mean())
        return loss, right
