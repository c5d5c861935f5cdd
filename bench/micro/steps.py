"""One step of the engine around a model that computes nothing: what remains is the engine's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bench.micro.figures import Figure, cpu_us
from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest
from epd.types import RequestKey, SamplingParams

BATCHES = (1, 8, 64, 256)
PROMPT, TOKENS = 16, 2000
STEPS = 40
VOCABULARY, HIDDEN = 64, 8


class Stub:
    """A language model's shape, and the least that its calls can be."""

    num_layers = kv_heads = 1
    head_dim = hidden_size = HIDDEN
    deepstack_levels = 0
    vocab_size = VOCABULARY
    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self) -> None:
        self._table = torch.zeros(VOCABULARY, HIDDEN)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self._table[ids]

    def forward(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        plan: Any,
        deepstack: tuple[torch.Tensor, torch.Tensor | Sequence[torch.Tensor]] | None = None,
    ) -> torch.Tensor:
        return embeds

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(hidden), VOCABULARY)

    def likeliest(self, hidden: torch.Tensor) -> torch.Tensor | None:
        return torch.zeros(len(hidden), dtype=torch.int64)


def figures() -> list[Figure]:
    """Per step, and per sequence of it, at every batch."""
    found = []
    for batch in BATCHES:
        engine = _running(batch)
        us, floor = cpu_us(engine.step, times=STEPS), _floor(batch)
        floor_is = "the stub model's own calls, ids in a tensor and out of it"
        name = f"step, batch {batch}"
        found.append(Figure(name=name, unit="step", us=us, floor=floor, floor_is=floor_is))
        found.append(
            Figure(
                name=f"{name}, each",
                unit="sequence",
                us=us / batch,
                floor=floor / batch,
                floor_is=floor_is,
            )
        )
    return found


def _running(batch: int) -> Engine:
    """So many greedy requests, all of which decode."""
    engine = Engine(
        Stub(),
        LanguageConfig(
            kv_tokens=batch * (PROMPT + TOKENS), max_running=batch, max_step_tokens=batch * PROMPT
        ),
    )
    sampling = SamplingParams(max_tokens=TOKENS, temperature=0.0)
    for number in range(batch):
        key = RequestKey(f"r{number}", 0)
        assert engine.reserve(key, PROMPT) is not None
        engine.start(
            EngineRequest(
                key=key,
                token_ids=[number % VOCABULARY] * PROMPT,
                positions=torch.arange(PROMPT, dtype=torch.float64),
                position_delta=0.0,
                sampling=sampling,
            )
        )
    engine.step()
    return engine


def _floor(batch: int) -> float:
    model = Stub()

    def work() -> list[int]:
        ids = torch.tensor([0] * batch)
        found = model.likeliest(model.forward(model.embed(ids), ids, None))
        assert found is not None
        chosen: list[int] = found.tolist()
        return chosen

    return cpu_us(work, times=STEPS)
