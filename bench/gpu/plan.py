"""Which jobs a check has, in which order, and how much time each of them may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.gpu import card, checkpoint, clusters, proofs, stages
from bench.gpu.jobs import Facts, Job, Report
from bench.gpu.shape import REAL, TINY, Shape, read_shape

LIMIT_S = 570.0
SECTIONS = ("card", "kernels", "equality", "stages", "clusters")
TOPOLOGIES = ("1E1P1D", "EPD", "1E1P1D over TCP")
OVER_TCP = " over TCP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is to be run. `work` is where checkpoints are built, one at a time per model."""

    work: Path
    dry: bool
    sections: Sequence[str] = SECTIONS
    models: Sequence[str] = ()
    topologies: Sequence[str] = TOPOLOGIES


def plan_jobs(choice: Choice) -> list[Job]:
    """In order of what they tell: the card, tests, then all of one model before the next."""
    device, dtype = ("cpu", "float32") if choice.dry else ("cuda", "bfloat16")
    jobs = [
        Job(
            name="card",
            model="",
            budget_s=30,
            run=partial(
                card.measure,
                device=device,
                dtype=dtype,
                plan=card.DRY if choice.dry else card.CardPlan(),
            ),
        ),
        _proof("kernels", proofs.KERNELS, 60),
        _proof("equality", proofs.EQUALITY, 110),
    ]
    for name in choice.models or (TINY if choice.dry else REAL):
        jobs += _of_model(choice, read_shape(name), device)
    return [job for job in jobs if job.name.split()[0] in choice.sections]


def _proof(section: str, paths: tuple[str, ...], budget_s: float) -> Job:
    run = partial(proofs.measure, section=section, paths=paths)
    return Job(name=section, model="tiny", budget_s=budget_s, run=run)


def _of_model(choice: Choice, shape: Shape, device: str) -> list[Job]:
    folder = choice.work / shape.name
    stage_plan = stages.DRY if choice.dry else stages.StagePlan()
    jobs = [
        Job(
            name="stages",
            model=shape.name,
            budget_s=130,
            run=partial(
                _build_and_measure, shape=shape, folder=folder, device=device, plan=stage_plan
            ),
        )
    ]
    for topology in choice.topologies:
        run = partial(
            clusters.measure,
            shape=shape,
            folder=folder,
            topology=topology.removesuffix(OVER_TCP),
            plan=clusters.DRY if choice.dry else clusters.REAL,
            tcp=topology.endswith(OVER_TCP),
        )
        jobs.append(Job(name=f"clusters {topology}", model=shape.name, budget_s=100, run=run))
    return jobs


def _build_and_measure(
    report: Report,
    facts: Facts,
    *,
    shape: Shape,
    folder: Path,
    device: str,
    plan: stages.StagePlan,
) -> None:
    """The checkpoint stays for the clusters."""
    checkpoint.build(folder, shape, device=device)
    stages.measure(report, facts, shape=shape, folder=folder, device=device, plan=plan)
