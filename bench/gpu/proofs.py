"""The tests that need a card, as rows: how many passed, and the names of those that did not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from bench.gpu.jobs import Facts, Report
from bench.gpu.rows import Fault, Row

ROOT = Path(__file__).resolve().parent.parent.parent
SAID = re.compile(r"^(tests/\S.*) (PASSED|FAILED|ERROR|SKIPPED)\b")
MARKED = "gpu and not slow"

EQUALITY = (
    "tests/models/test_every_family.py",
    "tests/models/test_varlen.py",
    "tests/models/test_cuda.py",
    "tests/models/test_block_experts.py",
    "tests/models/test_block_linear.py",
    "tests/cluster/test_equality.py",
)
KERNELS = (
    *(f"tests/{room}" for room in ("attention", "engine", "encoder", "transfer")),
    "tests/models/test_fused.py",
    "tests/models/test_laps.py",
)
"""What runs in one process."""

NOTHING_CHOSEN = 5


def measure(report: Report, facts: Facts, *, section: str, paths: tuple[str, ...]) -> None:
    """Run the tests of these paths that are marked gpu; a failed one is a Fault of its own."""
    command = [sys.executable, "-m", "pytest", "-m", MARKED, "--verbose", "--tb=line", "-rN"]
    command += ["--color=no", "-p", "no:cacheprovider", *paths]
    outcomes: dict[str, list[str]] = defaultdict(list)
    last = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        try:
            for line in tests.stdout:
                last = line.strip() or last
                if said := SAID.match(line):
                    outcomes[said[2]].append(said[1])
            tests.wait()
        except BaseException:
            tests.terminate()
            raise
        finally:
            _tell(report, section, outcomes)
    if tests.returncode not in (0, 1, NOTHING_CHOSEN):
        raise RuntimeError(f"pytest ended with status {tests.returncode}: {last}")


def _tell(report: Report, section: str, outcomes: dict[str, list[str]]) -> None:
    passed = len(outcomes["PASSED"])
    bad = [*outcomes["FAILED"], *outcomes["ERROR"]]
    report.row(
        Row(
            section=section,
            model="tiny",
            what=f"{passed} passed, {len(bad)} failed, {len(outcomes['SKIPPED'])} skipped",
            value=passed,
            unit="tests",
            detail=dict(outcomes),
        )
    )
    for name in bad:
        report.fault(Fault(section=section, model="tiny", reason=f"failed: {name}"))
