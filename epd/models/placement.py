"""Which device and which dtype a model runs in, where the configuration says "auto"."""

from __future__ import annotations

from epd.errors import ConfigError
from epd.models.spec import Checkpoint

DTYPES = ("float32", "bfloat16", "float16")


def resolve_device(device: str) -> str:
    """ "auto" is cuda where there is one. ConfigError when cuda is asked for and there is none."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device is {device}, but torch {torch.__version__} finds no CUDA device")
    return device


def resolve_dtype(dtype: str, checkpoint: Checkpoint) -> str:
    """ "auto" is the checkpoint's own."""
    resolved = checkpoint.dtype if dtype == "auto" else dtype
    if resolved not in DTYPES:
        raise ConfigError(f"dtype {resolved} is not supported; supported are: {', '.join(DTYPES)}")
    return resolved
