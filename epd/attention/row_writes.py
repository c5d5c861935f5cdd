"""Embedding rows put into a packed batch, and added to it: by our kernels where they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from epd.attention import kernels

WriteRows = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], object]
"""([T, n], distinct places [k], [k, n]): changes the first in place."""

Deepstack = tuple[torch.Tensor, torch.Tensor | Sequence[torch.Tensor]]
"""The places [k] of rows, and what each level of a model adds there, [k, hidden] each."""


def putter(device: torch.device) -> WriteRows:
    """What writes rows over others."""
    if not kernels.compiled(device):
        return lambda batch, places, rows: batch.index_copy_(0, places, rows)
    from epd.attention.kernels.rows import put_rows

    return put_rows


def adder(device: torch.device) -> WriteRows:
    """What adds rows to others."""
    if not kernels.compiled(device):
        return lambda batch, places, rows: batch.index_add_(0, places, rows)
    from epd.attention.kernels.rows import add_rows

    return add_rows
