"""What products in FP8 are compared with; and that they run."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bench.gpu import fp8
from bench.gpu.floors import decode_bytes
from bench.gpu.jobs import Began, Report
from bench.gpu.rows import Row
from bench.gpu.shape import read_shape
from epd.attention import kernels

ROOT = Path(__file__).resolve().parents[3]
SHAPE = read_shape("qwen3_vl_8b")


def test_products_are_all_weights_of_a_layer() -> None:
    assert sum(n * k for n, k in fp8.products(SHAPE.text)) == SHAPE.text.layer_weights


def test_a_step_moves_half_of_the_layers_and_all_of_the_rest() -> None:
    """192,937,984 values in a layer, 36 layers; a factor of 4 bytes for 16,384 of them."""
    small, plain = fp8.step_bytes(SHAPE, 8, 1024)
    assert plain == decode_bytes(SHAPE, 8, 1024).total
    assert plain - small == 36 * (192_937_984 - 4 * 192_937_984 // 16_384)


@pytest.mark.skipif(not kernels.interpreted(), reason="kernels are compiled here")
def test_every_number_of_rows_has_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FEW": (1, 2), "MANY": (65,), "SECONDS": 0.0}.items():
        monkeypatch.setattr(fp8, name, value)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    shape = read_shape("tiny_qwen3_vl")
    shape = replace(shape, config={**shape.config, "dtype": "bfloat16"})
    facts = {"flops_per_s": 1e9, "bytes_per_s": 1e9}
    fp8.measure(Report(theirs), facts, shape=shape, device="cpu", layers=1)
    theirs.close()
    said = []
    with suppress(EOFError):
        while True:
            said.append(ours.recv())
    found = [each for each in said if not isinstance(each, Began)]
    assert len(found) == 6 and all(isinstance(row, Row) and row.share for row in found), said
    small, plain = found[0], found[3]
    assert isinstance(small, Row) and isinstance(plain, Row)
    assert small.what.endswith("1 rows, fp8") and plain.what.endswith("1 rows, bfloat16")
    assert small.detail["bytes"] < plain.detail["bytes"]


def test_the_command_prints_what_the_page_says() -> None:
    command = [sys.executable, "-m", "bench.gpu.fp8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    steps = json.loads(done.stdout.splitlines()[-1])["steps"]
    page = (ROOT / "docs" / "performance.md").read_text()
    assert len(steps) == 8
    for step in steps:
        small, plain = (step[kind] / 1e9 for kind in ("fp8", "plain"))
        row = f"decode, batch {step['batch']} | {small:.3f} | {plain:.3f} | {small / plain:.2f} |"
        assert row in page
