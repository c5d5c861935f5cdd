"""The GPUs of this machine and what is free of them. Asks in a process of its own.

So whoever asks stays small, imports no torch and holds nothing of a GPU.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from epd.observe.devices import Gpu

SIGNS = tuple(map(Path, ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")))
"""Any of them says that there may be a GPU; containers and WSL show only some."""

ASK_DEVICES = """\
import torch
for number in range(torch.cuda.device_count()):
    print(*torch.cuda.mem_get_info(number))
"""


def gpus_here() -> dict[str, Gpu]:
    """By name, cuda:0 and on; none where there is no driver, or torch finds none."""
    if not any(sign.exists() for sign in SIGNS):
        return {}
    done = subprocess.run(
        [sys.executable, "-c", ASK_DEVICES],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    rows = [line.split() for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return {
        f"cuda:{number}": Gpu(free=int(free), total=int(whole))
        for number, (free, whole) in enumerate(rows)
    }
