"""What products in FP8 are compared with; and that they run."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bench.gpu import fp8, fp8_experts
from bench.gpu.floors import decode_bytes
from bench.gpu.jobs import Began, Facts, Report
from bench.gpu.rows import Row
from bench.gpu.shape import QWEN3_VL_30B_A3B, Experts, read_shape
from epd.attention import kernels

ROOT = Path(__file__).resolve().parents[3]
SHAPE = read_shape("qwen3_vl_8b")
FACTS: Facts = {"flops_per_s": 1e9, "bytes_per_s": 1e9}


def said(measure: Callable[[Report], None]) -> list[Row]:
    """All that it reports; nothing else but its parts."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    measure(Report(theirs))
    theirs.close()
    found = []
    with suppress(EOFError):
        while True:
            found.append(ours.recv())
    rows = [each for each in found if isinstance(each, Row)]
    assert len(rows) == len([each for each in found if not isinstance(each, Began)]), found
    return rows


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
    shape = read_shape("tiny_qwen3_vl")
    shape = replace(shape, config={**shape.config, "dtype": "bfloat16"})
    found = said(lambda report: fp8.measure(report, FACTS, shape=shape, device="cpu", layers=1))
    assert len(found) == 6 and all(row.share for row in found)
    small, plain = found[0], found[3]
    assert small.what.endswith("1 rows, fp8") and plain.what.endswith("1 rows, bfloat16")
    assert small.detail["bytes"] < plain.detail["bytes"]


def test_an_expert_is_read_as_a_byte_for_each_value() -> None:
    """Of 3 * 2048 * 768 values, and 4 bytes for each 16,384."""
    experts = QWEN3_VL_30B_A3B
    assert fp8_experts.stored_bytes(experts, small=True) == 4_718_592 + 4 * 288
    assert fp8_experts.stored_bytes(experts, small=False) == 2 * 4_718_592


def test_every_token_draws_as_many_experts_as_it_takes() -> None:
    chosen = fp8_experts.drawn(QWEN3_VL_30B_A3B, 100, 0)
    assert {len(set(row)) for row in chosen.tolist()} == {8}
    assert set(chosen.flatten().tolist()) == set(range(128))


@pytest.mark.skipif(not kernels.interpreted(), reason="kernels are compiled here")
def test_every_number_of_tokens_has_its_row_of_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8_experts, "TOKENS", (1, 3))
    monkeypatch.setattr(fp8_experts, "SECONDS", 0.0)
    experts = Experts(name="tiny", number=4, taken=2, hidden=64, inside=128)

    def measure(report: Report) -> None:
        fp8_experts.measure(report, FACTS, experts=experts, device="cpu", layers=1)

    found = said(measure)
    assert [row.detail["experts"] for row in found[::2]] == [2, 2]
    assert len(found) == 4 and all(row.share for row in found)
    assert found[0].what.endswith("1 tokens, fp8") and found[2].what.endswith("1 tokens, bfloat16")
    assert found[0].detail["bytes"] < found[2].detail["bytes"]


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
