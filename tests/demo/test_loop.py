"""Training that was interrupted goes on as if it had not been."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from demo import loop
from demo.optimizer import Optimizer


class Line(torch.nn.Module):
    """Learns to double."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        with torch.no_grad():
            self.linear.weight.fill_(0.1)
            self.linear.bias.zero_()

    def forward(self, data: torch.Tensor) -> tuple[torch.Tensor, Mapping[str, float]]:
        return (self.linear(data) - 2 * data).square().mean(), {}


def draw(step: int) -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(step))


def stage(steps: int) -> SimpleNamespace:
    return SimpleNamespace(
        NAME="line", STEPS=steps, batch=draw, rate=lambda step: 0.01 + 0.001 * step
    )


def test_what_went_on_from_a_state_is_what_was_never_interrupted(tmp_path: Path) -> None:
    whole = loop.train(Line(), stage(12), tmp_path / "whole")
    loop.train(Line(), stage(5), tmp_path / "parts")
    parts = loop.train(Line(), stage(12), tmp_path / "parts")
    for one, other in ((whole.model, parts.model), (whole.mean, parts.mean)):
        for name, weight in one.state_dict().items():
            assert weight.equal(other.state_dict()[name]), name


def test_the_mean_lags_behind_the_weights(tmp_path: Path) -> None:
    run = loop.train(Line(), stage(6), tmp_path)
    mean: Any = run.mean.module
    now: Any = run.model
    assert not mean.linear.weight.equal(now.linear.weight)


def test_each_half_moves_its_own_weights() -> None:
    model = torch.nn.ModuleDict({"inner": torch.nn.Linear(3, 3), "head": torch.nn.Linear(3, 2)})
    halves = Optimizer(model)
    by_muon = [weight for group in halves.muon.param_groups for weight in group["params"]]
    by_adamw = [weight for group in halves.adamw.param_groups for weight in group["params"]]
    inner: Any = model["inner"]
    assert [id(weight) for weight in by_muon] == [id(inner.weight)]
    assert len(by_adamw) == 3
