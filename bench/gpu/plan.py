"""Which jobs a check has, in which order, and how much time each of them may take. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gpu import proofs, workloads
from bench.gpu.jobs import Job
from bench.gpu.shape import QWEN3_VL_30B_A3B, REAL, TINY, Shape, read_shape

LIMIT_S = 570.0
SECTIONS = ("card", "kernels", "equality", "fp8", "stages", "clusters")
TOPOLOGIES = ("1E1P1D", "EPD", "1E1P1D over TCP")
OVER_TCP = " over TCP"

BUDGETS: dict[str, tuple[float, ...]] = {
    "card": (35,),  # with the imports that all others are forked with
    "kernels": (70,),
    "equality": (85,),
    "fp8": (15,),
    "stages": (55, 45),
    "clusters 1E1P1D": (60, 45),
    "clusters EPD": (45, 30),
    "clusters 1E1P1D over TCP": (30, 30),
    "fp8 experts": (10,),
}
"""Seconds, of the first model and of the second. What a job does not need goes to those behind it,
so those in front have what they need and a little more, and those at the end less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is to be run, and on which device; `work` is an empty folder for checkpoints."""

    work: Path
    dry: bool
    device: str = "cuda"
    sections: Sequence[str] = SECTIONS
    models: Sequence[str] = ()
    topologies: Sequence[str] = TOPOLOGIES


def plan_jobs(choice: Choice) -> list[Job]:
    """What is worth most comes first: the card, tests, stages, then one cluster after the other."""
    jobs = [
        Job(
            name="card",
            model="",
            budget_s=BUDGETS["card"][0],
            module="bench.gpu.card",
            arguments={
                "device": choice.device,
                "dtype": "float32" if choice.dry else "bfloat16",
                "plan": workloads.DRY_CARD if choice.dry else workloads.CardPlan(),
            },
        ),
        _proof("kernels", proofs.KERNELS),
        _proof("equality", proofs.EQUALITY),
    ]
    models = choice.models or (TINY if choice.dry else REAL)
    if not choice.dry:  # a CPU has no kernel for it
        jobs.append(_fp8(read_shape(models[0]), choice.device))
    each = [_of_model(choice, read_shape(name), place) for place, name in enumerate(models)]
    jobs += [job for same in zip(*each, strict=True) for job in same]
    if not choice.dry:
        jobs.append(_fp8_experts(choice.device))
    return [job for job in jobs if job.name.split()[0] in choice.sections]


def _proof(section: str, paths: tuple[str, ...]) -> Job:
    return Job(
        name=section,
        model="tiny",
        budget_s=BUDGETS[section][0],
        module="bench.gpu.proofs",
        arguments={"section": section, "paths": paths},
        proves=True,
    )


def _fp8(shape: Shape, device: str) -> Job:
    return Job(
        name="fp8",
        model=shape.name,
        budget_s=_budget("fp8", 0),
        module="bench.gpu.fp8",
        arguments={"shape": shape, "device": device},
    )


def _fp8_experts(device: str) -> Job:
    """No model that is measured has any."""
    return Job(
        name="fp8 experts",
        model=QWEN3_VL_30B_A3B.name,
        budget_s=_budget("fp8 experts", 0),
        module="bench.gpu.fp8_experts",
        arguments={"experts": QWEN3_VL_30B_A3B, "device": device},
    )


def _of_model(choice: Choice, shape: Shape, place: int) -> list[Job]:
    """`place` of the model among those that are measured."""
    of_shape = {
        "shape": shape,
        "folder": choice.work / shape.name,
        "device": choice.device,
    }
    stages = Job(
        name="stages",
        model=shape.name,
        budget_s=_budget("stages", place),
        module="bench.gpu.stages",
        arguments={
            **of_shape,
            "plan": workloads.DRY_STAGES if choice.dry else workloads.StagePlan(),
        },
    )
    clusters = [
        Job(
            name=f"clusters {topology}",
            model=shape.name,
            budget_s=_budget(f"clusters {topology}", place),
            module="bench.gpu.clusters",
            arguments={
                **of_shape,
                "topology": topology.removesuffix(OVER_TCP),
                "plan": workloads.DRY_CLUSTER if choice.dry else workloads.ClusterPlan(),
                "tcp": topology.endswith(OVER_TCP),
            },
        )
        for topology in choice.topologies
    ]
    return [stages, *clusters]


def _budget(name: str, place: int) -> float:
    budgets = BUDGETS[name]
    return budgets[min(place, len(budgets) - 1)]
