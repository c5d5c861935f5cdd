"""Lets a torchvision that was built for CUDA be imported, and read pictures, beside a CPU's torch.

Read by every Python whose PYTHONPATH has this folder. Such a torchvision cannot load its compiled
parts: two operators that its modules register code for are declared before it is imported, and
pictures are decoded by PIL. Image transforms, which is what models need, are Python anyway.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import io
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

KEPT: list[Any] = []
"""A library that nobody holds takes its operators away."""


class Finder(importlib.abc.MetaPathFinder):
    """Sees torchvision's modules before they are found, and changes two of them."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """None: the next finder finds it."""
        if name == "torchvision" and not KEPT:
            KEPT.append(_declare())
        if name != "torchvision.io.image":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(name, str(spec.origin))
        return spec


class Loader(importlib.machinery.SourceFileLoader):
    """Runs the module, then gives it a decoder that works."""

    def exec_module(self, module: ModuleType) -> None:
        """As usual, and one function more."""
        super().exec_module(module)
        if not getattr(module, "_HAS_IMAGE_OPT", False):
            module.__dict__["decode_image"] = decode_image


def decode_image(
    input: Any,
    mode: Any = None,
    apply_exif_orientation: bool = False,
) -> Any:
    """The bytes of a file as a tensor, or its path -> RGB, uint8 [3, height, width]."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    file = input if isinstance(input, str) else io.BytesIO(input.numpy().tobytes())
    with Image.open(file) as opened:
        turned = ImageOps.exif_transpose(opened) if apply_exif_orientation else opened
        pixels = np.array(turned.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _declare() -> Any:
    import torch

    make: Any = torch.library.Library  # untyped in torch
    library = make("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


sys.meta_path.insert(0, Finder())
