"""The whole check on the CPU, and on a card that the CPU plays: of a real one only speed is new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulated import build

ROOT = Path(__file__).resolve().parents[3]


def dry_run(folder: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    work, out = folder / "work", folder / "out"
    work.mkdir()
    places = ["--work", str(work), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--dry-run", *places, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr
    (file,) = out.iterdir()
    found: dict[str, Any] = json.loads(file.read_text())
    assert f"written: {file}" in done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(found["rows"]), "the table, and no more"
    assert found["faults"] == []
    assert list(work.iterdir()) == []
    return found


def sections(found: dict[str, Any]) -> list[str]:
    return [row["section"] for row in found["rows"]]


@pytest.mark.slow
def test_a_dry_run_has_a_number_for_every_stage_and_for_a_cluster(tmp_path: Path) -> None:
    chosen = "--sections card stages clusters --models tiny_qwen3_vl --topologies EPD"
    found = dry_run(tmp_path, *chosen.split())
    assert sections(found) == [
        *["card"] * 2,
        "prefill",
        *["decode"] * 2,
        *["encode", "preprocess", "preprocess", "ttft EPD", "burst EPD"],
    ]
    assert all(row["share"] or row["section"] == "preprocess" for row in found["rows"][2:])


@pytest.mark.slow
def test_it_runs_on_a_card(tmp_path: Path) -> None:
    """A simulated one, in all processes."""
    if not build.possible():
        pytest.skip("torch has CUDA itself")
    chosen = "--device cuda --sections card stages clusters --models tiny_qwen3_vl"
    path = f"{ROOT / 'tests/simulated/site'}:{ROOT}"
    found = dry_run(tmp_path, *chosen.split(), "--topologies", "1E1P1D", PYTHONPATH=path)
    (handoff,) = (row for row in found["rows"] if row["section"] == "hand-off 1E1P1D")
    assert "cuda_ipc" in handoff["what"]
    assert all(row["share"] for row in found["rows"] if row["section"].startswith("ttft"))


@pytest.mark.slow
def test_a_dry_run_of_all_models_and_topologies_has_the_same_for_each(tmp_path: Path) -> None:
    found = dry_run(tmp_path, "--sections", "card", "stages", "clusters")
    each = [
        ["prefill", "decode", "decode", "encode", "preprocess", "preprocess"],
        ["hand-off 1E1P1D", "ttft 1E1P1D", "burst 1E1P1D"],
        ["ttft EPD", "burst EPD"],
        ["hand-off 1E1P1D"],
    ]
    assert sections(found) == ["card", "card", *(name for part in each for name in part * 2)]
