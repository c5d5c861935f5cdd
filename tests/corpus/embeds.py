"""Ready-made embeddings: the right ones, and everything that a pickle or a header can do.

They are for a Qwen-like tower that merges 2 x 2 patches: a grid of 1 x 4 x 4 has four rows.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from tests.corpus.entry import Entry, base64_text

REFUSALS = (400, 413, 422)

GRID = np.array([[1, 4, 4]], np.int64)
ROWS = 4


def rows(width: int, num: int = ROWS) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Such rows as a tower could give."""
    return np.random.default_rng(num).normal(0, 1, (num, width)).astype(np.float32)


def saved(value: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def stored(values: Any, name: str = "image_embeds") -> bytes:
    """A safetensors file of one array."""
    return safetensors.numpy.save({name: np.ascontiguousarray(values)})


def part(embeds: bytes | str | None, grid: bytes | str | None) -> dict[str, Any]:
    """The content part of a picture's rows; None leaves a field out."""
    fields = {"image_embeds": embeds, "image_grid_thw": grid}
    inner = {
        name: base64_text(value) if isinstance(value, bytes) else value
        for name, value in fields.items()
        if value is not None
    }
    return {"type": "image_embeds", "image_embeds": inner}


def entries(width: int) -> Iterator[Entry]:
    grid = stored(GRID, "image_grid_thw")
    for name, data in _right(width).items():
        yield Entry(f"embeds: {name}", part(data, grid))
    yield Entry(
        "embeds: a grid of torch.save", part(stored(rows(width)), saved(torch.tensor(GRID)))
    )
    for name, data in {**_hostile(width), **_headers(width), **_wrong(width)}.items():
        yield Entry(f"embeds: {name}", part(data, grid), REFUSALS, "image")
    for name, values in _grids().items():
        bad = part(stored(rows(width)), stored(values, "image_grid_thw"))
        yield Entry(f"embeds: a grid {name}", bad, REFUSALS, "image")
    good = stored(rows(width))
    yield Entry("embeds: no grid", part(good, None), REFUSALS, "image_grid_thw")
    yield Entry("embeds: no rows", part(None, grid), REFUSALS, "image_embeds")
    yield Entry("embeds: no base64", part("@@@@", grid), REFUSALS, "base64")
    yield Entry("embeds: nothing", part("", grid), REFUSALS)
    path = {"type": "image_embeds", "image_embeds": "/etc/passwd"}
    yield Entry("embeds: a path", path, REFUSALS)
    number = {"type": "image_embeds", "image_embeds": 5}
    yield Entry("embeds: a number", number, REFUSALS)


def _right(width: int) -> dict[str, bytes]:
    values = rows(width)
    return {
        "safetensors": stored(values),
        "torch.save": saved(torch.from_numpy(values)),
        "bfloat16": safetensors.torch.save({"image_embeds": torch.from_numpy(values).bfloat16()}),
        "bfloat16 of torch.save": saved(torch.from_numpy(values).bfloat16()),
        "float16": stored(values.astype(np.float16)),
    }


class _Command:
    """Unpickling it would run a command."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


CANARY = "/tmp/epd-test-unpickled"
"""Exists only if somebody unpickled what must not be."""


def _hostile(width: int) -> dict[str, bytes]:
    values = torch.from_numpy(rows(width))
    good = saved(values)
    indices = torch.tensor([[0, 2**40], [0, 1]])
    sparse = torch.sparse_coo_tensor(
        indices, torch.tensor([1.0, 2.0]), (2**41, width), check_invariants=False
    )
    return {
        "a pickle": pickle.dumps(_Command(CANARY)),
        "a pickle of protocol 0": pickle.dumps(_Command(CANARY), 0),
        "a pickle inside torch.save": saved(_Command(CANARY)),
        "a pickle in the old format": saved(_Command(CANARY), _use_new_zipfile_serialization=False),
        "a tensor in the old format": saved(values, _use_new_zipfile_serialization=False),
        "a pickle beside the tensor": _with(good, "data.pkl", pickle.dumps(_Command(CANARY))),
        "a sparse tensor": saved(sparse),
        "a dictionary": saved({"image_embeds": values}),
        "a list": saved([values]),
        "a module": saved(torch.nn.Linear(2, 2)),
        "complex numbers": saved(values.to(torch.complex64)),
        "truth values": saved(values > 0),
        "whole numbers": saved(values.long()),
        "a storage that is too short": _with(good, "data/0", bytes(8)),
        "a storage of 4 GB, zipped": _zip_bomb(good),
        "a name that climbs": _with(good, "../../../../tmp/epd-test-climbed", b"x"),
        "a zip inside": _with(good, "data.pkl", good),
        "a zip of nothing": b"PK\5\6" + bytes(18),
        "a zip cut short": good[: len(good) // 2],
        "a view beyond its storage": _with(good, "data.pkl", _viewing(good, width)),
    }


def _with(data: bytes, name: str, content: bytes) -> bytes:
    """The archive with this file in place of its own, or beside it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            if not entry.endswith(name):
                new.writestr(entry, old.read(entry))
        new.writestr(name if name.startswith("..") else f"archive/{name}", content)
    return buffer.getvalue()


def _zip_bomb(data: bytes) -> bytes:
    """32 MiB of zeros in a few bytes, in an archive that claims 4 GB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            for entry in old.namelist():
                if not entry.endswith("data/0"):
                    new.writestr(entry, old.read(entry))
        new.writestr("archive/data/0", bytes(32 << 20))
    return buffer.getvalue().replace(struct.pack("<I", 32 << 20), struct.pack("<I", (1 << 32) - 2))


def _viewing(data: bytes, width: int) -> bytes:
    """The tensor's pickle with a million times its rows, over the same few bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith("data.pkl"))
        pickled = archive.read(name)
    old = b"K" + bytes([ROWS]) + b"K" + bytes([width])
    assert old in pickled
    return pickled.replace(old, b"J" + struct.pack("<i", 1_000_000) + b"K" + bytes([width]), 1)


def _headers(width: int) -> dict[str, bytes]:
    """Safetensors files whose header and bytes do not fit each other."""
    data = rows(width).tobytes()
    right = {"dtype": "F32", "shape": [ROWS, width], "data_offsets": [0, len(data)]}

    def made(**changes: Any) -> bytes:
        return _safetensors({"image_embeds": {**right, **changes}}, data)

    huge = struct.pack("<Q", 1 << 62) + b"{}"
    return {
        "a header of 2^62 bytes": huge,
        "a header longer than the file": struct.pack("<Q", 1000) + b"{}",
        "a header that is no JSON": struct.pack("<Q", 4) + b"evil" + data,
        "a header that is a list": struct.pack("<Q", 2) + b"[]" + data,
        "a header that is deeply nested": struct.pack("<Q", 100_000) + b"[" * 100_000,
        "no tensor": _safetensors({}, b""),
        "two tensors": _safetensors({"image_embeds": right, "other": right}, data),
        "a shape of 2^40": made(shape=[1 << 40, width]),
        "a negative shape": made(shape=[-ROWS, width]),
        "a shape that is a word": made(shape="all"),
        "a shape of fractions": made(shape=[4.0, float(width)]),
        "offsets behind the end": made(data_offsets=[0, 1 << 40]),
        "offsets backwards": made(data_offsets=[len(data), 0]),
        "offsets that begin inside": made(data_offsets=[4, len(data)]),
        "an unknown type": made(dtype="F99"),
        "a type that is too small": made(dtype="F64"),
        "bytes at the end": _safetensors({"image_embeds": right}, data + bytes(64)),
        "noise": np.random.default_rng(2).bytes(4000),
    }


def _safetensors(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _wrong(width: int) -> dict[str, bytes]:
    nan = rows(width)
    nan[1, 1] = np.nan
    infinite = rows(width)
    infinite[0, 0] = np.inf
    return {
        "rows that are too few": stored(rows(width, ROWS - 1)),
        "rows that are too many": stored(rows(width, ROWS + 1)),
        "rows that are too narrow": stored(rows(width - 1)),
        "rows that are too wide": stored(rows(width + 1)),
        "no rows at all": stored(rows(width, 0)),
        "one dimension": stored(rows(width).ravel()),
        "three dimensions": stored(rows(width).reshape(2, 2, width)),
        "a single number": stored(np.float32(3)),
        "text": stored(np.frombuffer(b"hello world!", np.uint8)),
        "NaN": stored(nan),
        "infinity": stored(infinite),
    }


def _grids() -> dict[str, Any]:
    return {
        "of another size": np.array([[1, 4, 6]]),
        "of nothing": np.array([[0, 4, 4]]),
        "below nothing": np.array([[-1, -4, 4]]),
        "that overflows": np.array([[1 << 31, 1 << 31, 1 << 31]]),
        "of 2^62": np.array([[1, 2, 1 << 62]]),
        "of odd sides": np.array([[1, 3, 5]]),
        "of two pictures": np.array([[1, 4, 4], [1, 4, 4]]),
        "with two sides": np.array([[4, 4]]),
        "of fractions": np.array([[1.0, 4.0, 4.0]]),
        "of no shape": np.array(16),
    }
