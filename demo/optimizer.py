"""What moves the weights: Muon for the matrices between layers, AdamW for all others.

Muon (Jordan, 2024, https://kellerjordan.github.io/posts/muon) makes each matrix's step orthogonal.
Here it learns in 500 steps of the words' stage what AdamW has not learnt in 2,000.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_OUTER = frozenset({"embed_tokens", "head", "lm_head", "reading", "saying"})
_DECAY = 0.05
_AS_ADAMW = "match_rms_adamw"  # steps as large as AdamW's at the same rate
_FASTER = 3.0  # Muon's rate over AdamW's


class Optimizer:
    """Of a stage's module, in two halves."""

    def __init__(self, model: torch.nn.Module) -> None:
        named = dict(model.named_parameters())
        inner = {name for name, weight in named.items() if _inner(name, weight)}
        others = [weight for name, weight in named.items() if name not in inner]
        groups = [
            {"params": [w for w in others if w.ndim >= 2], "weight_decay": _DECAY},
            {"params": [w for w in others if w.ndim < 2], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)
        self.muon = torch.optim.Muon(
            [named[name] for name in sorted(inner)],
            lr=0.0,
            weight_decay=_DECAY,
            adjust_lr_fn=_AS_ADAMW,
        )

    def step(self, rate: float) -> None:
        """`rate`: AdamW's."""
        for half, faster in ((self.adamw, 1.0), (self.muon, _FASTER)):
            for group in half.param_groups:
                group["lr"] = rate * faster
            half.step()
            half.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"adamw": self.adamw.state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.adamw.load_state_dict(state["adamw"])
        self.muon.load_state_dict(state["muon"])


def _inner(name: str, weight: torch.Tensor) -> bool:
    return weight.ndim == 2 and _OUTER.isdisjoint(name.split("."))
