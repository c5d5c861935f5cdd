"""What could go wrong between two pictures' rows and the language model, for negative controls."""

from __future__ import annotations

from collections.abc import Callable

import torch

Rows = list[torch.Tensor]
"""Of two pictures, [num_rows, hidden * (1 + levels)] each."""


def _zero_rows(rows: Rows, hidden: int) -> Rows:
    return [torch.zeros_like(rows[0]), rows[1]]


def _rows_of_another_picture(rows: Rows, hidden: int) -> Rows:
    """As if a buffer still held what it held before."""
    first, second = rows
    stale = second.repeat(1 + len(first) // len(second), 1)[: len(first)]
    return [stale, second]


def _no_deepstack(rows: Rows, hidden: int) -> Rows:
    return [torch.cat([one[:, :hidden], 0 * one[:, hidden:]], dim=1) for one in rows]


def _shifted_deepstack(rows: Rows, hidden: int) -> Rows:
    """Each level goes in one layer too late, the last one in the first."""
    return [
        torch.cat([one[:, :hidden], one[:, hidden:].roll(hidden, dims=1)], dim=1) for one in rows
    ]


def _deepstack_of_another_picture(rows: Rows, hidden: int) -> Rows:
    stale = _rows_of_another_picture(rows, hidden)
    return [torch.cat([rows[0][:, :hidden], stale[0][:, hidden:]], dim=1), rows[1]]


WRONG_ROWS: dict[str, Callable[[Rows, int], Rows]] = {
    "zero rows": _zero_rows,
    "rows of another picture": _rows_of_another_picture,
    "no deepstack": _no_deepstack,
    "deepstack one level shifted": _shifted_deepstack,
    "deepstack of another picture": _deepstack_of_another_picture,
}
WRONG_PLACES = ("1-D positions", "no delta")

FAULTS = [
    (family, fault)
    for family in ("qwen2_5_vl", "qwen3_vl")
    for fault in (*WRONG_ROWS, *WRONG_PLACES)
    if family == "qwen3_vl" or "deepstack" not in fault
]


def inflict(
    fault: str, rows: Rows, hidden: int, positions: torch.Tensor, delta: float
) -> tuple[Rows, torch.Tensor, float]:
    """Rows, positions and delta with this fault in them."""
    if fault in WRONG_ROWS:
        return WRONG_ROWS[fault](rows, hidden), positions, delta
    if fault == "1-D positions":
        return rows, torch.arange(positions.shape[1]).expand(3, -1), 0
    return rows, positions, 0
