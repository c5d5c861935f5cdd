"""Makes `import torchvision` work beside a CPU build of torch when the wheel was built for CUDA.

PyPI's torchvision is linked against CUDA libraries. Beside a CPU torch its compiled half cannot
load, its operators stay undeclared, and the import dies on `torchvision::nms`, which takes all of
transformers' processors with it. Declaring the two operators that the import looks up is enough:
the pure Python transforms work; nms and the image codecs, which epd never calls, do not.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch

_LIBRARY: Any = torch.library.Library  # untyped in torch
_DECLARED: list[Any] = []  # a declaration lives as long as its library object
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def prepare_torchvision() -> bool:
    """Call before anything imports torchvision. True when the operators had to be declared here.

    Does nothing where torch has CUDA, where torchvision is absent or already imported, and where
    its compiled half loads.
    """
    if _DECLARED or "torchvision" in sys.modules or torch.version.cuda is not None:
        return bool(_DECLARED)
    library = _compiled_half()
    if library is None or _loads(library):
        return False
    operators = _LIBRARY("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(name + _SIGNATURE)
    _DECLARED.append(operators)
    return True


def _compiled_half() -> Path | None:
    """torchvision's `_C`, found without importing torchvision."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    return next((f for s in EXTENSION_SUFFIXES if (f := folder / f"_C{s}").exists()), None)


def _loads(library: Path) -> bool:
    """Loading it registers the real operators, as torchvision's own import would."""
    try:
        ctypes.CDLL(str(library))
    except OSError:
        return False
    return True
