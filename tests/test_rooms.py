"""The rooms hold: who imports whom, and who never meets torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import epd

ROOT = Path(__file__).parent.parent
TORCH_FREE = (
    "gateway",
    "prompt",
    "handoff",
    "cluster",
    "wire",
    "config",
    "observe",
    "cli",
    "grammar",
    "llm",
    "bench",
    "sizing",
)
TORCH_FREE_MODULES = (
    "epd.types",
    "epd.errors",
    "epd.models",
    "epd.models.spec",
    "epd.workers",
    "epd.workers.front",
)

# Runs in a process that finds no torch, as on a machine that has none.
WITHOUT_TORCH = """
import importlib, sys
from importlib.machinery import PathFinder
class NoTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in ("torch", "torchvision")
        return None if hidden else super().find_spec(name, path, target)
sys.meta_path = [NoTorch if finder is PathFinder else finder for finder in sys.meta_path]
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_the_import_contracts_hold() -> None:
    """Rows, owned libraries, pure rooms: the contracts stand in pyproject.toml."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gateway_and_all_it_needs_import_where_torch_is_not_installed() -> None:
    modules = [name for room in TORCH_FREE for name in modules_of(room)]
    modules += [name for name in TORCH_FREE_MODULES if exists(name)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *modules], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "epd.wire.messages" in modules


def modules_of(room: str) -> list[str]:
    """The room and every module in it, by name, without importing any."""
    path = Path(epd.__path__[0]) / room
    inside = pkgutil.walk_packages([str(path)], prefix=f"epd.{room}.")
    return [f"epd.{room}", *(module.name for module in inside)]


def exists(name: str) -> bool:
    path = Path(epd.__path__[0]).joinpath(*name.split(".")[1:])
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
