"""The Makefile's promises that can be checked without installing anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )


def test_make_alone_lists_the_targets() -> None:
    printed = make().stdout
    for target in (
        "serve",
        "test",
        "test-slow",
        "test-simulated",
        "test-clients",
        "test-openapi",
        "test-page",
        "test-ray",
        "lint",
        "bench-peers",
        "gpu-check",
        "deploy-check",
    ):
        assert f"make {target} " in printed


def test_serve_installs_first_and_passes_the_model_on(tmp_path: Path) -> None:
    steps = make("-n", "serve", f"VENV={tmp_path}/new", "MODEL=/m", "ARGS=--port 1").stdout
    assert steps.index("-m venv") < steps.index("torch==") < steps.index("install -c")
    assert steps.rstrip().endswith("epd serve /m --port 1")


def test_test_lints_and_leaves_out_what_is_slow_or_for_a_gpu() -> None:
    steps = make("-n", "test").stdout
    needs_more = "and not clients and not openapi and not page and not deploy"
    together = f"not slow and not gpu and not alone {needs_more}"
    one_by_one = f"alone and not slow and not gpu {needs_more}"
    chosen = (f'--numprocesses 2 --dist loadfile -m "{together}"', f'-q -m "{one_by_one}"')
    on_a_card = '-p tests.simulated.plugin -m "simulated and not slow"'
    for command in ("ruff check", "mypy", "lint-imports", *chosen, on_a_card):
        assert command in steps


@pytest.mark.parametrize("name", ["clients", "openapi", "page"])
def test_clients_get_their_environments_before_they_run(name: str) -> None:
    steps = make("-n", f"test-{name}").stdout
    assert steps.index("tests.clients.environments") < steps.index(f"-m {name} tests/{name}")


def test_deploy_check_makes_its_environment_and_runs_all_that_is_about_deploying() -> None:
    steps = make("-n", "deploy-check").stdout
    made = [
        steps.index(f"python -m {name}") for name in ("tests.clients.environments", "tests.debian")
    ]
    assert max(made) < steps.index("-q tests/deploy")


def test_ray_gets_its_environment_before_its_tests_run() -> None:
    steps = make("-n", "test-ray").stdout
    assert steps.index("tests.clients.environments ray") < steps.index("tests/launch/test_ray.py")


def test_venv_has_the_development_tools_and_bench_measures_the_parts(tmp_path: Path) -> None:
    steps = make("-n", "venv", f"VENV={tmp_path}/new").stdout
    assert "install -c constraints.txt" in steps and "-e '.[dev]'" in steps
    assert "python -m bench.micro" in make("-n", "bench").stdout


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="a GPU here, most likely")
def test_gpu_check_without_a_gpu_says_so_and_succeeds() -> None:
    done = make("gpu-check", f"GPU_PYTHON={sys.executable}")
    assert done.returncode == 0
    assert "no CUDA GPU on this machine: nothing to check" in done.stdout


def test_ci_runs_what_a_developer_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make --no-print-directory test </dev/null" in script.read_text()
