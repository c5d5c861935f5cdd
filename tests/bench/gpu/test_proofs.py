"""What pytest says becomes a row, and every test that failed a fault."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import proofs
from bench.gpu.rows import Fault, Row

TESTS = """\
import pytest

@pytest.mark.gpu
@pytest.mark.parametrize("name", ["one", "two on cuda"])
def test_good(name):
    pass

@pytest.mark.gpu
def test_bad():
    assert False

@pytest.mark.gpu
@pytest.mark.slow
def test_long():
    assert False

def test_of_the_cpu():
    assert False
"""
SETTINGS = "[pytest]\nmarkers =\n    gpu\n    slow\n"


class Heard:
    """What a job said."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.faults: list[Fault] = []
        self.row, self.fault = self.rows.append, self.faults.append


def measure(folder: Path, monkeypatch: pytest.MonkeyPatch, *paths: str) -> Heard:
    heard: Any = Heard()
    (folder / "tests").mkdir()
    (folder / "pytest.ini").write_text(SETTINGS)
    (folder / "tests" / "test_it.py").write_text(TESTS)
    monkeypatch.setattr(proofs, "ROOT", folder)
    proofs.measure(heard, {}, section="kernels", paths=paths)
    found: Heard = heard
    return found


def test_tests_for_a_card_are_counted_and_those_that_fail_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = measure(tmp_path, monkeypatch, "tests/test_it.py")
    (row,) = heard.rows
    assert (row.value, row.what) == (2, "2 passed, 1 failed, 0 skipped")
    assert row.detail["PASSED"][1] == "tests/test_it.py::test_good[two on cuda]"
    assert [fault.reason for fault in heard.faults] == ["failed: tests/test_it.py::test_bad"]


def test_tests_that_cannot_run_are_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="status 4"):
        measure(tmp_path, monkeypatch, "tests/test_that_is_not_there.py")


@pytest.mark.parametrize("path", [*proofs.EQUALITY, *proofs.KERNELS])
def test_what_is_run_on_a_card_is_there(path: str) -> None:
    assert (proofs.ROOT / path).exists()


def test_what_a_card_alone_can_show_in_one_process_is_run_on_it() -> None:
    """Of clusters test_equality.py is all that ten minutes have room for."""
    run = [proofs.ROOT / path for path in (*proofs.EQUALITY, *proofs.KERNELS)]
    marked = [
        file
        for file in (proofs.ROOT / "tests").rglob("test_*.py")
        if re.search(r"^(@|pytestmark = )pytest\.mark\.gpu$", file.read_text(), re.MULTILINE)
    ]
    assert len(marked) > 8
    left_out = [f for f in marked if not {f, *f.parents} & set(run)]
    assert [file.name for file in left_out] == ["test_proofs.py"]
