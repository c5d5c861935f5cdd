"""Steps of training: data drawn in a second process, a log, and states to go on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from demo.optimizer import Optimizer

SAVE_EVERY_S = 120.0
LOG_EVERY = 25
_WEIGHTS = 0.995  # how much of the mean weights stays at each step
_MEMORY = 0.98  # how much of a figure's mean stays at each step


class Stage(Protocol):
    """A module: its data by step, its rate by step."""

    NAME: str
    STEPS: int

    def batch(self, step: int) -> Any: ...

    def rate(self, step: int) -> float: ...


class _Batches(IterableDataset[Any]):
    def __init__(self, draw: Callable[[int], Any], first: int, last: int) -> None:
        self.draw, self.first, self.last = draw, first, last

    def __iter__(self) -> Iterator[Any]:
        torch.set_num_threads(1)
        for step in range(self.first, self.last):
            yield self.draw(step)


def train(model: torch.nn.Module, stage: Stage, folder: Path) -> Run:
    """Train until the stage's last step, from its saved state where there is one."""
    run = Run(model)
    state = folder / f"{stage.NAME}.pt"
    first = run.restore(state)
    loader = DataLoader(
        _Batches(stage.batch, first, stage.STEPS), batch_size=None, num_workers=1, prefetch_factor=6
    )
    means: dict[str, float] = {}
    saved = time.monotonic()
    model.train()
    bar = tqdm(loader, desc=stage.NAME, initial=first, total=stage.STEPS, mininterval=20)
    for step, data in enumerate(bar, first):
        figures = run.step(data, stage.rate(step))
        _average(means, figures)
        if (step + 1) % LOG_EVERY == 0:
            bar.set_postfix_str(" ".join(f"{k} {v:.3f}" for k, v in means.items()), refresh=False)
            tqdm.write(f"{stage.NAME} {step + 1} " + bar.postfix)
        if time.monotonic() - saved > SAVE_EVERY_S:
            run.save(state, step + 1)
            saved = time.monotonic()
    run.save(state, max(first, stage.STEPS))
    return run


class Run:
    """A model in training, its optimizer, and the mean of its last weights, to look at."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.optimizer = Optimizer(model)
        mean: Any = get_ema_multi_avg_fn  # untyped in torch
        self.mean = AveragedModel(model, multi_avg_fn=mean(_WEIGHTS))

    def step(self, data: Any, rate: float) -> Mapping[str, float]:
        with torch.autocast("cpu", torch.bfloat16):
            loss, figures = self.model(data)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(rate)
        self.mean.update_parameters(self.model)
        return {"loss": float(loss.detach()), **figures}

    def save(self, path: Path, step: int) -> None:
        """Whole, or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        state = {name: part.state_dict() for name, part in self._parts()}
        torch.save({"step": step, **state}, beside)
        beside.replace(path)

    def restore(self, path: Path) -> int:
        """The step to go on with."""
        if not path.is_file():
            return 0
        state = torch.load(path, weights_only=True)
        for name, part in self._parts():
            part.load_state_dict(state[name])
        return int(state["step"])

    def _parts(self) -> list[tuple[str, Any]]:
        return [("model", self.model), ("optimizer", self.optimizer), ("mean", self.mean)]


def _average(means: dict[str, float], figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
        if value == value:  # a figure may have nothing to count
            means[name] = means.get(name, value) * _MEMORY + value * (1 - _MEMORY)
