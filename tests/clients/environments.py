"""The pinned environments of the clients: `python -m tests.clients.environments [NAME ...]`.

Each is a folder below .venvs/, made from its lock in tests/clients/locks (pip) or
tests/clients/node (npm), and made anew when its lock changes. None has CUDA: GuideLLM needs
torch, and gets the CPU build that this project's own .venv has, or no environment at all. So do
the servers of bench/peers, whose locks lie there, and which are made only when named.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".venvs"
LOCKS = Path(__file__).parent / "locks"
PEERS = ROOT / "bench" / "peers" / "locks"
NODE = Path(__file__).parent / "node"
NODE_MODULES = "node"
STAMP = "made-from.txt"


def names() -> list[str]:
    """Those that there are locks for."""
    return sorted([*(lock.stem for lock in LOCKS.glob("*.txt")), NODE_MODULES])


def missing(name: str) -> bool:
    """Whether the environment has to be made, or made anew."""
    stamp = FOLDER / name / STAMP
    return not stamp.is_file() or stamp.read_text() != _lock(name).read_text()


def python(name: str) -> Path:
    """Its interpreter."""
    return FOLDER / name / "bin" / "python"


def program(name: str, command: str) -> Path:
    """A command that it brings."""
    return FOLDER / name / "bin" / command


def make(name: str) -> None:
    """Make it from nothing."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    if name == NODE_MODULES:
        _make_node(folder)
    else:
        _make_python(folder, _lock(name))
    (folder / STAMP).write_text(_lock(name).read_text())


def _lock(name: str) -> Path:
    if name == NODE_MODULES:
        return NODE / "package-lock.json"
    lock = LOCKS / f"{name}.txt"
    return lock if lock.is_file() else PEERS / f"{name}.txt"


def _make_python(folder: Path, lock: Path) -> None:
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "-r", str(lock)], check=True)


def _make_node(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, folder / name)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or names():
        if missing(wanted):
            sys.stderr.write(f"making .venvs/{wanted}\n")
            make(wanted)
