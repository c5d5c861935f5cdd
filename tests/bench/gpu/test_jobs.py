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
    proves: bool = False,
    keep: Callable[[Found], None] = lambda found: None,
) -> Found:
    made = [
        Job(
            name=act,
            model="m",
            budget_s=budget_s,
            module="tests.bench.gpu.measured",
            arguments={"act": act, "path": path},
            proves=proves,
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
    found = run(file, "hangs", "ends", limit_s=15.0)
    assert [row.what for row in found.rows] == ["hangs", "on its way out", "ends"]
    (fault,) = found.faults
    assert fault.reason == "out of time after 5 s, in a part" and fault.late
    assert file.read_text() == "closed"


def test_tests_that_do_not_come_to_their_end_are_a_failure(tmp_path: Path) -> None:
    found = run(tmp_path / "closed", "hangs", limit_s=8.0, proves=True)
    assert [fault.late for fault in found.faults] == [False]


def test_what_a_job_does_not_need_goes_to_those_behind_it(tmp_path: Path) -> None:
    found = run(tmp_path / "closed", "ends", "ends", "hangs", limit_s=14.0)
    (fault,) = found.faults
    seconds = float(fault.reason.split()[4])
    assert 3 < seconds <= 9 and found.seconds["hangs m"] > seconds - 1


def test_where_no_time_is_left_a_job_says_so_instead_of_beginning(tmp_path: Path) -> None:
    found = run(tmp_path / "f", "ends", limit_s=4.0)
    assert not found.rows
    assert found.faults[0].reason == "out of time: nothing left of 4 s"
