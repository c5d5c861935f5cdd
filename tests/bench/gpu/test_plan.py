"""Which jobs there are, in which order, and that their time is what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.gpu import __main__ as command
from bench.gpu import proofs
from bench.gpu.jobs import GRACE_S, Found, Job
from bench.gpu.plan import LIMIT_S, Choice, plan_jobs
from bench.gpu.rows import Fault
from bench.gpu.shape import REAL


def plan(*, dry: bool = False) -> list[Job]:
    return plan_jobs(Choice(work=Path("nowhere"), dry=dry))


def test_budgets_of_all_jobs_are_the_time_there_is() -> None:
    """So no job can take what is left for another."""
    assert sum(job.budget_s for job in plan()) == LIMIT_S - GRACE_S


def test_what_is_worth_most_comes_first() -> None:
    first, second = REAL
    found = [(job.name, job.model) for job in plan()]
    assert [name for name, _ in found[:4]] == ["card", "kernels", "equality", "fp8"]
    assert found[4:8] == [
        ("stages", first),
        ("stages", second),
        ("clusters 1E1P1D", first),
        ("clusters 1E1P1D", second),
    ]


def test_a_dry_run_has_the_same_jobs_with_other_models_but_what_only_a_card_can() -> None:
    on_a_card = [job.name for job in plan() if not job.name.startswith("fp8")]
    assert [job.name for job in plan(dry=True)] == on_a_card


def test_only_tests_have_to_come_to_their_end() -> None:
    for job in plan():
        assert job.proves is (job.module == proofs.__name__)


@pytest.mark.parametrize(("late", "status"), [(True, 0), (False, 1)])
def test_what_there_was_no_time_for_is_no_failure(
    late: bool,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault = Fault(section="clusters EPD", model="m", reason="out of time", late=late)
    monkeypatch.setattr(command, "run_jobs", lambda *_, **__: Found(faults=[fault]))
    assert command.main(["--out", str(tmp_path)]) == status
    told = capsys.readouterr()
    said = "not measured" if late else "failed"
    assert told.out.splitlines()[-1] == f"clusters EPD m: {said}: out of time"
    assert ("clusters EPD m failed" in told.err) is not late
