"""How large the processors make a picture or frame, in tokens of 28 by 28 pixels."""

from __future__ import annotations

import math

TOKEN = 28
IMAGE_TOKENS = (32, 42)
"""Least and most tokens of a picture: shapes are widened or flattened by a fifth at most."""
FRAME_TOKENS = (15, 20)


def grid(width: int, height: int, tokens: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns, as the processors' `smart_resize` says."""
    least, most = (num * TOKEN * TOKEN for num in tokens)
    rows, columns = (max(1, round(side / TOKEN)) for side in (height, width))
    if rows * columns > tokens[1]:
        scale = math.sqrt(height * width / most)
        rows, columns = (max(1, math.floor(side / scale / TOKEN)) for side in (height, width))
    elif rows * columns < tokens[0]:
        scale = math.sqrt(least / (height * width))
        rows, columns = (math.ceil(side * scale / TOKEN) for side in (height, width))
    return rows, columns
