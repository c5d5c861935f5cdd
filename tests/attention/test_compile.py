"""Kernels are not only right where they are interpreted: they compile for cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

KERNELS = (
    *("_decode", "_join", "_prefill", "_write"),
    *("_rms_norm", "_silu_mul", "_rows", "_rotate"),
    *("_narrow", "_product", "_add", "_experts"),
    *("_peaks", "_best", "_edge", "_sums", "_walk"),
)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 89, 90, 100])
def test_every_kernel_compiles_within_what_a_card_has(capability: int) -> None:
    """99 KiB of shared memory is what the smallest of these lets one program have."""
    command = [sys.executable, "-m", "tests.attention.compile_kernels", str(capability)]
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    without_units = {"_narrow"} if capability < 89 else set()
    assert {name for name, _, _ in found} == set(KERNELS) - without_units
    for name, shared, spilled in found:
        assert shared <= 99 * 1024 and spilled == 0, (name, shared, spilled)
