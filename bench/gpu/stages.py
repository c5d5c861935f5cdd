"""Decode, prefill and encode of one model, each alone, through epd's own engine and towers."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.gpu import checkpoint, floors, pictures, rows
from bench.gpu.card import rates, repeat
from bench.gpu.jobs import Facts, Report
from bench.gpu.rows import Row
from bench.gpu.shape import Shape
from bench.gpu.workloads import StagePlan
from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest, StepResult
from epd.models.adapter import Prepared
from epd.models.language import load_language
from epd.models.spec import read_checkpoint
from epd.models.towers import Towers, load_towers
from epd.types import Modality, RequestKey, SamplingParams

WARMUP_STEPS = 3
TARGET_BATCHES = range(1, 33)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the language model is run."""

    name: str
    fused: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


NO_GRAPHS = {"cuda_graphs": False}
WAYS = (
    Way(name="as configured"),
    Way(name="without graphs", settings=NO_GRAPHS),
    Way(name="without graphs and fusion", fused=False, settings={**NO_GRAPHS, "attention": "sdpa"}),
)
"""Tried in this order: where one fails, that is a fault, and the next one still has its numbers."""


def measure(
    report: Report, facts: Facts, *, shape: Shape, folder: Path, device: str, plan: StagePlan
) -> None:
    """All three, on a checkpoint in `folder`. Facts: "NAME encode N s" and "NAME prefill
    flops_per_s"."""
    checkpoint.build_once(folder, shape)
    bench = StageBench(report, facts, shape, folder, device, plan)
    report.part("prefill, decode", shape.name, bench.language)
    bench.free()
    report.part("encode", shape.name, bench.encode)


class StageBench:
    """One model on one device."""

    def __init__(
        self,
        report: Report,
        facts: Facts,
        shape: Shape,
        folder: Path,
        device: str,
        plan: StagePlan,
    ) -> None:
        self._report, self._shape, self._device, self._plan = report, shape, device, plan
        self._rates = rates(facts)
        self._checkpoint = read_checkpoint(folder, dummy=True)
        self._engine: Engine | None = None
        self._most_new = 0

    # ---- the language model

    def language(self) -> None:
        """One engine for both: prompts that are one chunk first, then decodes."""
        for way in WAYS:
            if self._report.part(f"engine, {way.name}", self._shape.name, partial(self._try, way)):
                break
            self.free()
        engine = self._engine
        if engine is None:
            raise RuntimeError("no way of running the language model worked")
        for chunk in self._plan.chunks:
            part = partial(self._prefill, engine, chunk)
            self._report.part(f"prefill {chunk}", self._shape.name, part)
        self._report.part("decode", self._shape.name, partial(self._decodes, engine))

    def free(self) -> None:
        """The card's memory, for what comes next."""
        self._engine = None
        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _try(self, way: Way) -> None:
        """Make the engine, and see that it answers."""
        plan = self._plan
        model = load_language(
            self._checkpoint, device=self._device, dtype=self._shape.dtype, fused=way.fused
        )
        most_new = (plan.steps + WARMUP_STEPS + 1) * len(plan.batches) + max(plan.batches)
        held = max(plan.batches) * (plan.context + most_new + 16) + 2 * max(plan.chunks)
        config = LanguageConfig(
            kv_tokens=held,
            max_running=max(plan.batches),
            max_step_tokens=max(plan.chunks),
            prefix_cache=False,
            **way.settings,
        )
        engine = Engine(model, config)
        start(engine, "first", min(plan.chunks), 3)
        while engine.has_work:
            step(engine)
        self._engine, self._most_new = engine, most_new

    def _decodes(self, engine: Engine) -> None:
        """More and more requests at once."""
        running = 0
        for batch in self._plan.batches:
            for number in range(running, batch):
                start(engine, f"decode {number}", self._plan.context, self._most_new)
            running = batch
            self._decode(engine, batch)

    def _prefill(self, engine: Engine, chunk: int) -> None:
        """A prompt that is one chunk, with the sampling of its token."""

        def once() -> None:
            start(engine, f"prefill {chunk}", chunk, 1)
            while engine.has_work:
                step(engine)

        seconds = statistics.median(repeat(once, self._device, self._plan.seconds))
        flops = floors.prefill_flops(self._shape.text, chunk)
        self._report.fact(f"{self._shape.name} prefill flops_per_s", flops / seconds)
        self._rate("prefill", f"{chunk} tokens", flops, seconds, rows.PREFILL)

    def _decode(self, engine: Engine, batch: int) -> None:
        """Steps in which every request gets one token."""
        plan = self._plan
        while len(step(engine).tokens) < batch:
            pass
        times = [_timed_step(engine) for _ in range(WARMUP_STEPS + plan.steps)][WARMUP_STEPS:]
        seconds = statistics.median(times)
        moved = floors.decode_bytes(self._shape, batch, plan.context + plan.steps // 2)
        floor = None if self._rates is None else moved.total / self._rates.bytes_per_s
        self._report.row(
            Row(
                section="decode",
                model=self._shape.name,
                what=f"batch {batch}, {plan.context} tokens each",
                value=seconds * 1e3,
                unit="ms",
                floor=None if floor is None else floor * 1e3,
                share=None if floor is None else floor / seconds,
                target=rows.DECODE if batch in TARGET_BATCHES else None,
                detail={"bytes": moved.total, "weights": moved.weights, "seconds": times},
            )
        )

    # ---- the towers

    def encode(self) -> None:
        """All pictures in one forward, from pixels on the host to rows on the device."""
        towers = load_towers(
            self._checkpoint,
            modalities=(Modality.IMAGE,),
            device=self._device,
            dtype=self._shape.dtype,
        )
        grid = self._shape.grid(*self._plan.picture)
        for num in self._plan.pictures:
            part = partial(self._encode, towers, grid, num)
            self._report.part(f"encode {num}", self._shape.name, part)
        part = partial(
            pictures.compare, self._report, self._shape, self._checkpoint, towers, self._plan
        )
        self._report.part("preprocess", self._shape.name, part)

    def _encode(self, towers: Towers, grid: tuple[int, int], num: int) -> None:
        items = [
            pictures.prepare(towers, pictures.noise(self._plan.picture, seed))
            for seed in range(num)
        ]
        self._check_grid(items, grid)
        times = repeat(lambda: towers.encode(items), self._device, self._plan.seconds)
        seconds = statistics.median(times)
        self._report.fact(f"{self._shape.name} encode {num} s", seconds)
        flops = floors.tower_flops(self._shape.tower, [grid] * num)
        size = "x".join(map(str, self._plan.picture))
        self._rate("encode", f"{num} of {size}", flops, seconds, rows.ENCODE)

    def _check_grid(self, items: Sequence[Prepared], grid: tuple[int, int]) -> None:
        """The operations counted are those of the pictures that ran."""
        found = {item.patches for item in items}
        if found != {grid[0] * grid[1]}:
            raise ValueError(f"{self._shape.name}: patches {found}, counted with {grid}")

    def _rate(
        self, section: str, what: str, flops: int, seconds: float, target: rows.Target
    ) -> None:
        rate = flops / seconds
        peak = None if self._rates is None else self._rates.flops_per_s
        self._report.row(
            Row(
                section=section,
                model=self._shape.name,
                what=what,
                value=rate / 1e12,
                unit="TFLOP/s",
                floor=None if peak is None else peak / 1e12,
                share=None if peak is None else rate / peak,
                target=target,
                detail={"flops": flops, "seconds": seconds},
            )
        )


def start(engine: Engine, name: str, num_prompt: int, max_tokens: int) -> None:
    """A request that runs to its last token. MemoryError: the engine has no room for it."""
    key = RequestKey(name, 0)
    if engine.reserve(key, num_prompt) is None:
        raise MemoryError(f"no KV for {num_prompt} tokens, {engine.free_tokens} are free")
    rng = random.Random(name)
    engine.start(
        EngineRequest(
            key=key,
            token_ids=[rng.randrange(1000) for _ in range(num_prompt)],
            positions=torch.arange(num_prompt),
            position_delta=0,
            sampling=SamplingParams(max_tokens=max_tokens),
        )
    )


def step(engine: Engine) -> StepResult:
    """One step. EpdError: a request failed in it."""
    result = engine.step()
    for _, error in result.failed:
        raise error
    return result


def _timed_step(engine: Engine) -> float:
    began = time.perf_counter()
    step(engine)
    return time.perf_counter() - began
