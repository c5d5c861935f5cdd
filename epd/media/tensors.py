"""Ready-made embeddings: one dense tensor from a file of bytes that a stranger sent.

Two formats: safetensors, and the zip that `torch.save` writes, whose pickle stream is read by an
interpreter of its own that knows nothing but plain tensors.
"""

from __future__ import annotations

from epd.config import ItemLimits
from epd.errors import BadRequest
from epd.media.decoded import Tensors


def read_tensors(name: str, data: bytes, limits: ItemLimits) -> Tensors:
    """The one tensor of a file, or the one called `name`, under that name.

    float16, float32, float64, int32, int64; bfloat16 is widened to float32. C-contiguous, writable.
    BadRequest or TooLarge say what is wrong with `name`.
    """
    raise BadRequest(f"{name}: neither safetensors nor a torch.save file")
