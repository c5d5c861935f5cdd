"""A client in its own environment: a process without the machine's settings and without a network.

Whatever would leave the machine is sent to a proxy that is not there, so it fails at once.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clients.environments import ROOT, missing

NOWHERE = "http://127.0.0.1:9"
TIMEOUT_S = 180.0
ENVIRONMENT = {
    "PATH": os.defpath,
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "HTTP_PROXY": NOWHERE,
    "HTTPS_PROXY": NOWHERE,
    "http_proxy": NOWHERE,
    "https_proxy": NOWHERE,
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "OMP_NUM_THREADS": "1",
}


def needs(*environments: str) -> pytest.MarkDecorator:
    """Skips where they have not been made."""
    absent = [name for name in environments if missing(name)]
    return pytest.mark.skipif(bool(absent), reason=f"no .venvs/{absent}: `make test-clients`")


def run(
    argv: Sequence[str | Path], home: Path, *, cwd: Path = ROOT, said: str = ""
) -> subprocess.CompletedProcess[str]:
    """To its end, with `said` on its standard input; it must succeed."""
    done = subprocess.run(
        [str(part) for part in argv],
        cwd=cwd,
        env={**ENVIRONMENT, "HOME": str(home)},
        input=said,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    tail = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{tail}"
    return done
