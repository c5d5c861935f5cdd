"""Compiles this folder's C++ for the CPU it runs on, once, and keeps the library.

A plain C interface without torch's headers: a compile takes seconds. The library takes OpenMP from
torch, so that both share one set of threads.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import torch

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
COMPILERS = ("c++", "g++", "clang++")
# Undefined symbols of OpenMP are found in what torch has loaded: nothing is linked with it.
COMPILE = [
    *("-std=c++17", "-O3", "-march=native", "-mprefer-vector-width=512"),
    *("-fopenmp", "-fPIC", "-Wno-psabi", "-c"),
]
LINK = ["-shared"]
COMPILE_TIMEOUT_S = 120.0


def load_library(cache: Path) -> ctypes.CDLL | None:
    """The library for this CPU out of `cache`, where it is put first if it is not there.

    None where that cannot be; the log says why.
    """
    try:
        compiler = _compiler()
        path = _private(cache) / f"layers-{_key(compiler)}.so"
        if not path.is_file():
            _build(compiler, path)
        return ctypes.CDLL(str(path), mode=os.RTLD_NOW)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("layers are not compiled, steps are slower: %s", _reason(error))
        return None


def sources() -> list[Path]:
    """All that is compiled or included."""
    return sorted(FOLDER.glob("*.cpp")) + sorted(FOLDER.glob("*.h"))


def _compiler() -> str:
    if not torch.cpu._is_avx512_supported():
        raise OSError("this CPU has no AVX-512")  # 16 short registers hold no tile's sums
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        raise FileNotFoundError("there is no C++ compiler")
    return found


def _private(folder: Path) -> Path:
    """Nobody else may write what this process will run."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise PermissionError(f"others may write to {folder}")
    return folder


def _key(compiler: str) -> str:
    """Changes with the code, the compiler, the CPU and torch."""
    parts = [path.read_bytes() for path in sources()]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    parts += [version, _cpu().encode(), torch.__version__.encode(), " ".join(COMPILE).encode()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:24]


def _cpu() -> str:
    """What `-march=native` sees."""
    text = Path("/proc/cpuinfo").read_text()
    return "\n".join(re.findall(r"^(?:model name|flags|Features)\s*:.*$", text, re.M)[:2])


def _build(compiler: str, path: Path) -> None:
    """Under another name first: several processes may do this at once."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        made, library = Path(name) / "layers.o", Path(name) / path.name
        source = str(FOLDER / "library.cpp")
        _run([compiler, *COMPILE, source, "-o", str(made)])
        _run([compiler, *LINK, str(made), "-o", str(library)])
        library.replace(path)
    log.info("compiled layers in %.1f s: %s", time.monotonic() - began, path)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S)


def _reason(error: Exception) -> str:
    """One line: the compiler's first that names an error, where it has spoken."""
    said = getattr(error, "stderr", None)
    lines = said.splitlines() if isinstance(said, str) else []
    if isinstance(error, subprocess.TimeoutExpired):
        return f"the compiler took more than {error.timeout:.0f} s"
    return next((line for line in lines if "error" in line), str(error))
