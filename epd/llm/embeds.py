"""Ready-made embeddings: one tensor, or an object of fields, cut into a part per item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from epd.llm.arrays import Array, as_array, described, tensor_file, wrong

GRID = "_grid_thw"


def is_embeds(value: Any) -> bool:
    """An object of fields, or floating-point values [rows, width] or [items, rows, width]."""
    if isinstance(value, Mapping):
        return True
    values = as_array(value)
    return values is not None and values.dtype.kind == "f" and values.ndim in (2, 3)


def embeds_parts(kind: str, value: Any, where: str) -> list[dict[str, Any]]:
    """A part per item. Of several items with one grid each, rows may follow one another."""
    name = f"{kind}_embeds"
    given: Mapping[str, Any] = value if isinstance(value, Mapping) else {name: value}
    if name not in given:
        raise wrong(where, f"has no {name}")
    facts = {
        field: _numbers(one, f"{where}.{field}") for field, one in given.items() if field != name
    }
    items = _items(given[name], facts, f"{where}.{name}")
    parts = []
    for number, rows in enumerate(items):
        fields = {name: rows}
        for field, values in facts.items():
            fields[field] = _of_one(values, number, len(items), f"{where}.{field}")
        files = {field: tensor_file(field, values) for field, values in fields.items()}
        parts.append({"type": name, name: files})
    return parts


def _items(value: Any, facts: Mapping[str, Array], where: str) -> list[Array]:
    """The rows of each item."""
    if isinstance(value, list | tuple):
        found = [_rows(one, f"{where}[{number}]") for number, one in enumerate(value)]
        return [one[0] if one.ndim == 3 and len(one) == 1 else one for one in found]
    rows = _rows(value, where)
    if rows.ndim == 3:
        return list(rows)
    grids = [values for field, values in facts.items() if field.endswith(GRID)]
    if not grids or grids[0].size == 3:
        return [rows]
    return _by_grid(rows, grids[0].reshape(-1, 3), where)


def _by_grid(rows: Array, grids: Array, where: str) -> list[Array]:
    """All items have as many patches to a row, so their grids say how many rows each has."""
    patches = grids.prod(axis=1)
    merged, odd = divmod(int(patches.sum()), max(1, len(rows)))
    if odd or not merged or (patches % merged).any():
        raise wrong(where, f"is {described(rows)}, which does not fit the grids {grids.tolist()}")
    return np.split(rows, np.cumsum(patches // merged)[:-1])


def _rows(value: Any, where: str) -> Array:
    rows = as_array(value)
    if rows is None or rows.dtype.kind != "f" or rows.ndim not in (2, 3):
        what = f"a {type(value).__name__}" if rows is None else described(rows)
        raise wrong(where, f"is {what}, not floating point [rows, width]")
    return rows


def _numbers(value: Any, where: str) -> Array:
    """Of a field that says how rows are placed: a tensor, an array, or lists."""
    found = as_array(value)
    if found is None and isinstance(value, list | tuple):
        each = [one if (array := as_array(one)) is None else array for one in value]
        try:
            found = np.asarray(each)
        except ValueError:
            raise wrong(where, "has items of different shapes") from None
    if found is None or found.dtype.kind not in "fiu":
        raise wrong(where, "is no tensor of numbers")
    return found


def _of_one(values: Array, number: int, num_items: int, where: str) -> Array:
    if num_items == 1:
        return values.reshape(-1)
    if values.ndim == 0 or len(values) != num_items:
        raise wrong(where, f"is {described(values)}: there are {num_items} items")
    return np.atleast_1d(values[number]).reshape(-1)
