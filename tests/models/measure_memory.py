"""`python -m tests.models.measure_memory CHECKPOINT`: what loading each half and the whole costs.

Each part is loaded in a process of its own, forked after the imports, which touches every weight.
The last line is JSON: part -> bytes of its weights, and by how many the process's memory peaked.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from epd.models.partial import load_part
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.torchvision_shim import prepare_torchvision

PARTS = {
    "towers": ("model.visual",),
    "language": ("model.language_model", "lm_head"),
    "whole": ("model.visual", "model.language_model", "lm_head"),
}


def memory(field: str) -> int:
    """Bytes of this process by the kernel's count: VmRSS now, VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def measure(checkpoint: Checkpoint, keep: tuple[str, ...]) -> dict[str, int]:
    before = memory("VmRSS")
    model = load_part(checkpoint, keep, device="cpu", dtype="float32")
    for weight in model.parameters():
        weight.sum().item()
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return {"weights": weights, "peak": memory("VmHWM") - before}


def in_a_fork(checkpoint: Checkpoint, keep: tuple[str, ...]) -> dict[str, int]:
    """The parent stays as it was after the imports."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, json.dumps(measure(checkpoint, keep)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        found: dict[str, int] = json.load(stream)
    os.wait()
    return found


def main() -> None:
    torch.set_num_threads(1)
    checkpoint = read_checkpoint(sys.argv[1])
    prepare_torchvision()
    import transformers.models.qwen2_5_vl.modeling_qwen2_5_vl  # noqa: F401

    found = {part: in_a_fork(checkpoint, keep) for part, keep in PARTS.items()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
