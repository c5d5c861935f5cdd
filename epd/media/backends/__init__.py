"""What decodes a video's frames: PyAV, or another library that the operator installed.

All of them get a file that PyAV has opened and judged, and the numbers of frames in the order in
which they are shown; so what a file is, how many frames it has and which formats are let in never
depends on the backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from epd.errors import ConfigError
from epd.media.backends.table import FrameTable

MODULES = {"pyav": "av", "opencv": "cv2", "torchcodec": "torchcodec", "decord": "decord"}


class Backend(Protocol):
    """Decodes frames of one file that is in memory. Nothing is written to a disk."""

    def frames(
        self, data: bytes, table: FrameTable, indices: Sequence[int]
    ) -> Iterator[NDArray[np.uint8]]:
        """Each frame upright, [height, width, 3] RGB, valid until the next. `indices` ascend."""
        ...


def load_backend(name: str) -> Backend:
    """ConfigError when its library is not installed."""
    check_backend(name)
    try:
        backend: Backend = import_module(f"epd.media.backends.{name}").BACKEND
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(f"media.video.backend={name}: {error}") from error
    return backend


def check_backend(name: str) -> None:
    """ConfigError when its library is not there. Imports nothing."""
    if find_spec(MODULES[name]) is None:
        raise ConfigError(
            f"media.video.backend={name} needs a library that is not installed:"
            f" pip install 'epd[{name}]'"
        )


__all__ = ["MODULES", "Backend", "FrameTable", "check_backend", "load_backend"]
