"""Recording work of a device, so that it can be asked for again as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

_cuda: Any = torch.cuda  # much of it is untyped
_WARM_UPS = 2  # kernels are compiled and chosen in the first, workspaces are there in the second


class Recorded(Protocol):
    """Work on tensors that stay where they are."""

    def replay(self) -> torch.Tensor:
        """All of it again. What it gives is overwritten by the next replay of anything recorded."""


class Capture(Protocol):
    """Records."""

    def record(self, run: Callable[[], torch.Tensor]) -> Recorded:
        """What `run` asks the device for, which depends on no value that the host would look at."""


class CudaCapture:
    """CUDA graphs that share their memory, for one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def record(self, run: Callable[[], torch.Tensor]) -> Recorded:
        """See Capture."""
        ours = torch.cuda.current_stream(self._device)
        beside = _cuda.Stream(self._device)
        beside.wait_stream(ours)
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                run()
        ours.wait_stream(beside)
        graph = _cuda.CUDAGraph()
        # Threads of NCCL look at events of earlier sums meanwhile, which is no business of ours.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=beside, capture_error_mode="thread_local"
        ):
            out = run()
        self._pool = graph.pool()
        return _CudaRecorded(graph, out)


class _CudaRecorded:
    def __init__(self, graph: Any, out: torch.Tensor) -> None:
        self._graph = graph
        self._out = out

    def replay(self) -> torch.Tensor:
        """See Recorded."""
        self._graph.replay()
        return self._out
