"""Jobs that fail, die or hang take no other's numbers with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.gpu import jobs
from bench.gpu.jobs import Found, Job, run_jobs


@pytest.fixture(autouse=True)
def no_preload(monkeypatch: pytest.MonkeyPatch) -> None:
    """These jobs need no torch."""
    monkeypatch.setattr(jobs, "PRELOAD", [])
    monkeypatch.setattr(jobs, "GRACE_S", 5.0)


def run(
    path: Path,
    *acts: str,
    budget_s: float = 30.0,
    limit_s: float = 60.0,
    keep: Callable[[Found], None] = lambda found: None,
) -> Found:
    made = [
        Job(
            name=act,
            model="m",
            budget_s=budget_s,
            module="tests.bench.gpu.measured",
            arguments={"act": act, "path": path},
        )
        for act in acts
    ]
    return run_jobs(made, limit_s=limit_s, log=lambda text: None, keep=keep)


def test_a_job_that_fails_or_dies_keeps_its_rows_and_the_next_one_runs(tmp_path: Path) -> None:
    kept: list[int] = []
    found = run(tmp_path / "f", "fails", "dies", "ends", keep=lambda so: kept.append(len(so.rows)))
    assert kept == [1, 2, 3]  # after each of them, whatever it did
    assert [(row.what, row.value) for row in found.rows] == [
        ("fails", 0.0),
        ("dies", 1.0),
        ("ends", 2.0),
    ]
    failed, died = found.faults
    assert failed.section == "fails" and "ValueError: on purpose" in failed.reason
    assert died.reason == "its process ended with status 3"
    assert set(found.seconds) == {"fails m", "dies m", "ends m"}


def test_a_job_that_hangs_is_ended_in_order_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "closed"
    found = run(file, "hangs", "ends", budget_s=5.0)
    assert [row.what for row in found.rows] == ["hangs", "on its way out", "ends"]
    assert [fault.reason for fault in found.faults] == ["ran out of time after 5 s"]
    assert file.read_text() == "closed"


def test_where_no_time_is_left_a_job_says_so_instead_of_beginning(tmp_path: Path) -> None:
    found = run(tmp_path / "f", "ends", limit_s=4.0)
    assert not found.rows
    assert found.faults[0].reason == "ran out of time: nothing left of 4 s"
