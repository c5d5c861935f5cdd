"""`make gpu-check`: run bench.gpu, tests and measurements, with the torch that this machine has.

A torch that is there is never replaced: what else is missing goes into .venv-gpu, which sees this
interpreter's packages, and nothing is installed when nothing is missing (a machine may have no
network): packages that are carried beside the repository are found through PYTHONPATH. Arguments
go to bench.gpu. Standard library only.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-gpu"
OLDEST_TORCH = (2, 11)
# Checked on CPU by `make test`; no test needs them.
LINTERS = {"mypy", "ruff", "import-linter", "types-psutil", "types-pyyaml", "setuptools"}


def main() -> int:
    """Find a GPU, a torch and the rest; the exit status of bench.gpu."""
    torch = installed("torch")
    if not has_gpu(torch is not None):
        print("no CUDA GPU on this machine: nothing to check")
        return 0
    if torch is None:
        print("no torch in this Python: using .venv")
        subprocess.run(["make", "--no-print-directory", "venv"], cwd=ROOT, check=True)
        python = str(ROOT / ".venv" / "bin" / "python")
    elif tuple(map(int, torch.split(".")[:2])) < OLDEST_TORCH:
        print(f"torch {torch} is older than {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]}")
        return 1
    else:
        lacking = missing()
        print(f"torch {torch}; missing: {', '.join(lacking) or 'nothing'}", flush=True)
        python = with_missing(lacking) if lacking else sys.executable
    return subprocess.run([python, "-m", "bench.gpu", *sys.argv[1:]], cwd=ROOT).returncode


def has_gpu(has_torch: bool) -> bool:
    """The driver's tool says so, or torch does (a container may have no tools)."""
    try:
        if subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0:
            return True
    except OSError:
        pass
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return has_torch and subprocess.run([sys.executable, "-c", code]).returncode == 0


def installed(name: str) -> str | None:
    """The version that this interpreter (and PYTHONPATH) has."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing() -> list[str]:
    """Requirements that are absent, or pinned in pyproject.toml to another version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = []
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name, _, pinned = requirement.partition("==")
        name = re.split(r"[<>=\[ ]", name)[0].lower()
        version = installed(name)
        if name not in LINTERS and (version is None or (pinned and version != pinned)):
            found.append(requirement)
    return found


def with_missing(lacking: list[str]) -> str:
    """A virtual environment on top of this interpreter's packages; its Python.

    Where nothing can be installed what is there has to do: sections that need more say so.
    """
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        # --system-site-packages would skip the packages of a virtual environment that runs us.
        ours = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
        site = VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        (site / "found.pth").write_text("\n".join(ours) + "\n")
    pins = VENV / "constraints.txt"
    kept = {"torch": installed("torch"), "torchvision": installed("torchvision")}
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.split("==")[0] not in kept
    ]
    pins.write_text("\n".join([*lines, *(f"{n}=={v}" for n, v in kept.items() if v)]) + "\n")
    quiet = ["-qq", "--disable-pip-version-check", "--retries=1"]
    done = subprocess.run(
        [str(python), "-m", "pip", *quiet, "install", "-c", str(pins), *lacking],
        env={**os.environ, "PIP_NO_INPUT": "1"},
    )
    if done.returncode != 0:
        print("going on without them. Where there is no network, carry a folder that has them:")
        print("pip install --target FOLDER ..., then PYTHONPATH=FOLDER make gpu-check", flush=True)
    return str(python)


if __name__ == "__main__":
    sys.exit(main())
