"""Compiles memory.cpp once for the torch that is here, some ten seconds, and loads it.

That has to be before torch is imported, which asks once what devices there are.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("memory.cpp")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "epd-tests"

DRIVER = "libcuda.so.1"
"""Who asks for it by this name gets what is loaded here."""


def possible() -> bool:
    """Not where torch has CUDA's own parts, with a GPU or without."""
    return not (_torch() / "lib/libtorch_cuda.so").exists()


def load() -> None:
    """Nothing else of torch may be loaded."""
    assert "torch" not in sys.modules, "torch has looked for its devices"
    torch = _torch()
    key = hashlib.sha256(SOURCE.read_bytes() + version("torch").encode()).hexdigest()[:16]
    library = CACHE / f"memory-{key}.so"
    if not library.is_file():
        _compile(library, torch)
    for path in (torch / "lib/libtorch_cpu.so", library):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def _torch() -> Path:
    found = find_spec("torch")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


def _compile(library: Path, torch: Path) -> None:
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        sys.exit("a simulated card needs a C++ compiler, of which there is none")
    library.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    include = [f"-I{torch / 'include'}", f"-I{torch / 'include/torch/csrc/api/include'}"]
    link = [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu"]
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        flags = ["-std=c++20", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{DRIVER}", *include]
        subprocess.run([compiler, *flags, str(SOURCE), *link, "-o", str(made)], check=True)
        made.replace(library)
