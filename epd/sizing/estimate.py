"""A workload on a machine: work and bytes per request and stage, and how many workers that is.

The stages are taken as lines without queues: a worker's time per request is the work divided by
what is assumed to be reached of the hardware. So the ratio of the roles is better known than the
times are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from epd.errors import ConfigError
from epd.sizing import formulas
from epd.sizing.formulas import Tower
from epd.sizing.items import Clip, Cut, Item, Picture, Sound, cut_clip, cut_picture, cut_sound
from epd.sizing.shapes import Shapes

GIGA = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What one worker computes on. `encode_share` and `prefill_share` of `flops` are reached.

    `flops` per second, dense, in the model's dtype; `memory_rate` in bytes per second; `link_rate`
    in bits per second; workers are busy for at most `busy` of the time.
    """

    flops: float
    memory_rate: float
    link_rate: float
    encode_share: float
    prefill_share: float
    busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`rate` requests per second, each with these items. `batch` answers grow together."""

    items: tuple[Item, ...]
    text_tokens: int
    output_tokens: int
    rate: float
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Of one request. `sent_bytes` go to the next stage.

    `load` is how many workers are busy all the time, `workers` how many to start. `link_gbits` is
    what all of the stage's transfers take at the rate, `hide_gbits` what one transfer needs to
    take no longer than the work that it follows.
    """

    name: str
    flops: float
    seconds: float
    sent_bytes: int
    sent_seconds: float
    load: float
    workers: int
    link_gbits: float
    hide_gbits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`topology` and `ratio` are the workers; `resident_kv` bytes are held by all of decode."""

    model: str
    prompt_tokens: int
    rows: int
    stages: tuple[Stage, ...]
    topology: str
    ratio: tuple[float, ...]
    step_seconds: float
    answers_at_once: float
    resident_kv: float
    assumed: tuple[str, ...]


def estimate(shapes: Shapes, workload: Workload, machine: Machine) -> Estimate:
    """ConfigError for an item that the model takes none of, or a workload without an end."""
    encode_flops, rows = 0.0, 0
    for item in workload.items:
        flops, cut = _encode(shapes, item)
        encode_flops += flops
        rows += cut.rows
    prompt = rows + workload.text_tokens
    step = _step_seconds(shapes, workload, machine, prompt)
    stages = (
        _stage(
            "encode",
            encode_flops,
            encode_flops / (machine.flops * machine.encode_share),
            rows * _row_bytes(shapes),
            workload,
            machine,
        ),
        _prefill(shapes, prompt, workload, machine),
        _decode(shapes, step, workload, machine),
    )
    loads = [stage.load for stage in stages]
    least = min(load for load in loads if load > 0)
    at_once = workload.rate * workload.output_tokens * step
    context = prompt + workload.output_tokens / 2
    return Estimate(
        model=shapes.name,
        prompt_tokens=prompt,
        rows=rows,
        stages=stages,
        topology="".join(f"{stage.workers}{stage.name[0].upper()}" for stage in stages),
        ratio=tuple(load / least for load in loads),
        step_seconds=step,
        answers_at_once=at_once,
        resident_kv=at_once * context * formulas.kv_bytes(shapes.language, shapes.value_bytes),
        assumed=shapes.assumed,
    )


def _encode(shapes: Shapes, item: Item) -> tuple[float, Cut]:
    width = shapes.language.hidden
    if isinstance(item, Sound):
        tower = _there(shapes.sound, "sound")
        cut = cut_sound(item)
        rows = math.ceil(cut.rows / cut.frames)
        return cut.frames * formulas.sound_flops(tower, width, cut.patches, rows), cut
    tower, patches = _there(shapes.vision, "pictures"), shapes.patches
    assert patches is not None
    cut = cut_clip(item, patches) if isinstance(item, Clip) else cut_picture(item, patches)
    return formulas.tower_flops(tower, width, cut.frames, cut.patches), cut


def _there(tower: Tower | None, what: str) -> Tower:
    if tower is None:
        raise ConfigError(f"this model takes no {what}")
    return tower


def _row_bytes(shapes: Shapes) -> int:
    taps = shapes.vision.taps if shapes.vision else 0
    return formulas.row_bytes(shapes.language.hidden, taps, shapes.value_bytes)


def _prefill(shapes: Shapes, prompt: int, workload: Workload, machine: Machine) -> Stage:
    flops = formulas.prefill_flops(shapes.language, prompt)
    seconds = flops / (machine.flops * machine.prefill_share)
    kv = prompt * formulas.kv_bytes(shapes.language, shapes.value_bytes)
    return _stage("prefill", flops, seconds, kv, workload, machine)


def _step_seconds(shapes: Shapes, workload: Workload, machine: Machine, prompt: int) -> float:
    """A decode step is as long as what it reads."""
    context = prompt + workload.output_tokens / 2
    read = formulas.decode_step_bytes(
        shapes.language, workload.batch, context, shapes.value_bytes, shapes.blocks
    )
    return read / machine.memory_rate


def _decode(shapes: Shapes, step: float, workload: Workload, machine: Machine) -> Stage:
    """An answer's share of the steps that it is in."""
    model = shapes.language
    token = 2 * (model.weights(model.experts_per_token) + model.vocabulary * model.hidden)
    seconds = workload.output_tokens * step / workload.batch
    return _stage("decode", token * workload.output_tokens, seconds, 0, workload, machine)


def _stage(
    name: str, flops: float, seconds: float, sent: int, workload: Workload, machine: Machine
) -> Stage:
    load = workload.rate * seconds
    return Stage(
        name=name,
        flops=flops,
        seconds=seconds,
        sent_bytes=sent,
        sent_seconds=sent * 8 / machine.link_rate,
        load=load,
        workers=max(1, math.ceil(load / machine.busy)),
        link_gbits=workload.rate * sent * 8 / GIGA,
        hide_gbits=sent * 8 / seconds / GIGA if seconds else 0.0,
    )


def described(items: Sequence[Item]) -> str:
    """A request's items in words."""
    words = {Picture: "picture", Clip: "video", Sound: "sound"}
    count = {word: sum(isinstance(item, kind) for item in items) for kind, word in words.items()}
    found = [f"{num} {word}{'s' * (num > 1)}" for word, num in count.items() if num]
    return ", ".join(found) or "text alone"
