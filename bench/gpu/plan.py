"""Which jobs a check has, in which order, and how much time each of them may take. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gpu import proofs, workloads
from bench.gpu.jobs import Job
from bench.gpu.shape import REAL, TINY, Shape, read_shape

LIMIT_S = 570.0
SECTIONS = ("card", "kernels", "equality", "fp8", "stages", "clusters")
TOPOLOGIES = ("1E1P1D", "EPD", "1E1P1D over TCP")
OVER_TCP = " over TCP"

# Seconds.
CARD, KERNELS, EQUALITY, FP8, STAGES, CLUSTER = 30, 60, 110, 40, 130, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is to be run. `work` is an empty folder where checkpoints are built."""

    work: Path
    dry: bool
    sections: Sequence[str] = SECTIONS
    models: Sequence[str] = ()
    topologies: Sequence[str] = TOPOLOGIES


def plan_jobs(choice: Choice) -> list[Job]:
    """The card, tests, then all of one model before the next, whose clusters may find no time."""
    jobs = [
        Job(
            name="card",
            model="",
            budget_s=CARD,
            module="bench.gpu.card",
            arguments={
                "device": _device(choice),
                "dtype": "float32" if choice.dry else "bfloat16",
                "plan": workloads.DRY_CARD if choice.dry else workloads.CardPlan(),
            },
        ),
        _proof("kernels", proofs.KERNELS, KERNELS),
        _proof("equality", proofs.EQUALITY, EQUALITY),
    ]
    if not choice.dry:  # a CPU has no kernel for it
        jobs.append(_fp8(read_shape((choice.models or REAL)[0]), _device(choice)))
    for name in choice.models or (TINY if choice.dry else REAL):
        jobs += _of_model(choice, read_shape(name))
    return [job for job in jobs if job.name.split()[0] in choice.sections]


def _device(choice: Choice) -> str:
    return "cpu" if choice.dry else "cuda"


def _proof(section: str, paths: tuple[str, ...], budget_s: float) -> Job:
    return Job(
        name=section,
        model="tiny",
        budget_s=budget_s,
        module="bench.gpu.proofs",
        arguments={"section": section, "paths": paths},
    )


def _fp8(shape: Shape, device: str) -> Job:
    return Job(
        name="fp8",
        model=shape.name,
        budget_s=FP8,
        module="bench.gpu.fp8",
        arguments={"shape": shape, "device": device},
    )


def _of_model(choice: Choice, shape: Shape) -> list[Job]:
    of_shape = {
        "shape": shape,
        "folder": choice.work / shape.name,
        "device": _device(choice),
    }
    stages = Job(
        name="stages",
        model=shape.name,
        budget_s=STAGES,
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
            budget_s=CLUSTER,
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
