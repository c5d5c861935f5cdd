"""Imported once by the process that jobs are forked from: what takes seconds to import.

None of it touches a GPU.
"""

from __future__ import annotations

from bench.gpu import checkpoint, clusters, stages
from epd.models.torchvision_shim import prepare_torchvision

__all__ = ["checkpoint", "clusters", "stages"]

prepare_torchvision()

from transformers import (  # noqa: E402, F401 - after torchvision is prepared
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
