"""What the CPU image installs, installed for real, of what the image copies and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import epd
from tests.deploy.overlays import ROOT
from tests.deploy.test_docker import all_of, sources

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `src` as the build stage has it, and `epd`, what it makes."""
    folder = tmp_path_factory.mktemp("image")
    for source in sources("cpu"):
        target = folder / "src" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, target, ignore=ignored)
        else:
            shutil.copy(ROOT / source, target)
    [step] = [one for one in all_of("cpu", "RUN") if one.startswith("docker/install.sh")]
    command = step.replace("/opt/epd", str(folder / "epd")).split()
    done = subprocess.run(
        command, cwd=folder / "src", capture_output=True, text=True, timeout=1700, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    yield folder
    shutil.rmtree(folder)


def said(image: Path, *command: str) -> str:
    done = subprocess.run(
        [image / "epd" / "bin" / command[0], *command[1:]],
        cwd=image,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_program_runs(image: Path) -> None:
    assert said(image, "epd", "--version") == f"epd {epd.__version__}\n"


def test_the_container_s_configuration_is_taken_with_its_traces(image: Path) -> None:
    """gateway.otlp_endpoint needs an extra, which the image has."""
    printed = said(image, "epd", "check", str(ROOT / "docker" / "epd.yaml"))
    assert "otlp_endpoint: http://jaeger:4318/v1/traces" in printed
    said(
        image,
        "python",
        "-c",
        "from epd.observe import open_traces as o; o('http://x', 'n').close()",
    )


def test_torch_comes_without_cuda(image: Path) -> None:
    assert said(image, "python", "-c", "import torch; print(torch.version.cuda)") == "None\n"


def test_every_version_is_the_one_of_the_constraints(image: Path) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pinned = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    for line in said(image, "pip", "list", "--format=freeze").split():
        name, _, version = line.partition("==")
        key = name.lower().replace("_", "-")
        if key not in ("pip", "setuptools", "epd"):
            assert version.partition("+")[0] == pinned[key], name
