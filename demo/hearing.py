"""The sound tower's forward for training, all sounds at once, and what it says of its rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from demo.attention import attended
from demo.compiling import compiled
from demo.labels import HEARD

_FAR = -1e9


def hear(tower: Any, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Rows [all, hidden] of sounds [num, mel bins, frames] of these lengths, one after another."""
    num, _, frames = features.shape
    known = (torch.arange(frames)[None] < lengths[:, None])[..., None]
    hidden = features.transpose(1, 2) * known
    hidden = F.gelu(_convolved(tower.conv1, hidden, step=1)) * known
    hidden = F.gelu(_convolved(tower.conv2, hidden, step=2))
    length = hidden.shape[1]
    hidden = hidden + tower.positional_embedding.positional_embedding[:length]
    halved = (lengths - 1) // 2 + 1
    past = torch.arange(length)[None] >= halved[:, None]
    bias = torch.zeros(num, 1, 1, length).masked_fill(past[:, None, None], _FAR)
    for layer in tower.layers:
        hidden = _layer(layer, hidden, bias)
    even = length // 2 * 2
    hidden = (hidden[:, 0:even:2] + hidden[:, 1:even:2]) / 2
    rows: torch.Tensor = tower.proj(tower.ln_post(hidden))
    return rows[torch.arange(length // 2)[None] < (halved // 2)[:, None]]


@compiled
def _layer(layer: Any, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    hidden = hidden + _attend(layer.self_attn, layer.self_attn_layer_norm(hidden), bias)
    wide = layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden)))
    out: torch.Tensor = hidden + layer.fc2(wide)
    return out


def _convolved(layer: Any, hidden: torch.Tensor, step: int) -> torch.Tensor:
    """As a product of matrices, which is faster backwards. [num, frames, values]"""
    around = F.pad(hidden, (0, 0, 1, 1)).unfold(1, 3, step).flatten(2)
    return F.linear(around, layer.weight.flatten(1), layer.bias)


def _attend(layer: Any, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    num, length, _ = hidden.shape
    query, key, value = (
        part(hidden).view(num, length, layer.num_heads, -1).transpose(1, 2)
        for part in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    found = attended(query, key, value, bias)
    out: torch.Tensor = layer.out_proj(found.transpose(1, 2).reshape(num, length, -1))
    return out


class Saying(torch.nn.Module):
    """Says of each row what is heard. Only for training."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(hidden, sum(HEARD.values()))

    def forward(
        self, rows: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss, and how often each of HEARD is right."""
        said = self.linear(rows).split(tuple(HEARD.values()), -1)
        loss, right = torch.zeros(()), {}
        for name, logits, label in zip(HEARD, said, labels.unbind(-1), strict=True):
            loss = loss + F.cross_entropy(logits, label)
            right[name] = float((logits.argmax(-1) == label).float().mean())
        return loss, right
