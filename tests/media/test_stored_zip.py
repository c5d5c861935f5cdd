"""Archives that are not quite what torch.save writes."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
import torch

from tests.media.saved_tensors import (
    described,
    refusal,
    torch_saved,
    torch_zip,
    zipped,
)


def changed(data: bytes, at: int, value: bytes) -> bytes:
    """Some bytes replaced; `at` counts from the end where it is negative."""
    at %= len(data)
    return data[:at] + value + data[at + len(value) :]


DAMAGED = "a damaged or unusual zip file"
TORCH = torch_saved(torch.ones(4))
PLAIN_ZIP = torch_zip(described())
DIRECTORY = PLAIN_ZIP.index(b"PK\1\2")
LAST_CENTRAL = PLAIN_ZIP.rindex(b"PK\1\2")

ZIPS: dict[str, tuple[bytes, str]] = {
    "deflated": (
        zipped({"a/data.pkl": described(), "a/data/0": bytes(16)}, zipfile.ZIP_DEFLATED),
        "compressed records",
    ),
    "bzip2": (zipped({"a/data.pkl": described()}, zipfile.ZIP_BZIP2), "compressed records"),
    "no description": (zipped({"a/data/0": bytes(16)}), "not one of torch.save"),
    "two descriptions": (
        zipped({"a/data.pkl": described(), "b/data.pkl": described()}),
        "not one of torch.save",
    ),
    "values of another folder": (
        zipped({"a/data.pkl": described(), "b/data/0": bytes(16)}),
        "its values are missing",
    ),
    "records beyond count": (zipped({f"a/{n}": b"" for n in range(65)}), "65 records"),
    "bytes before": (b"PK\3\4" + PLAIN_ZIP, DAMAGED),
    "bytes behind": (PLAIN_ZIP + b"\0", DAMAGED),
    "comment": (changed(PLAIN_ZIP, -2, b"\1\0") + b"x", DAMAGED),
    "no directory": (PLAIN_ZIP[:DIRECTORY], DAMAGED),
    "count too small": (changed(PLAIN_ZIP, -14, b"\3\0\3\0"), DAMAGED),
    "counts differ": (changed(PLAIN_ZIP, -14, b"\3\0\4\0"), DAMAGED),
    "directory elsewhere": (changed(PLAIN_ZIP, -6, b"\0\0\0\0"), DAMAGED),
    "encrypted": (changed(PLAIN_ZIP, DIRECTORY + 8, b"\1"), DAMAGED),
    "sizes differ": (changed(PLAIN_ZIP, DIRECTORY + 24, b"\xff\xff\xff\0"), "compressed"),
    "record longer than the file": (changed(PLAIN_ZIP, DIRECTORY + 20, b"\0\0\0\x7f" * 2), DAMAGED),
    "zip64 sizes": (changed(PLAIN_ZIP, DIRECTORY + 20, b"\xff" * 8), DAMAGED),
    "records overlap": (changed(PLAIN_ZIP, LAST_CENTRAL + 42, bytes(4)), DAMAGED),
    "record in the directory": (
        changed(PLAIN_ZIP, LAST_CENTRAL + 42, struct.pack("<I", DIRECTORY)),
        DAMAGED,
    ),
    "another local name": (changed(PLAIN_ZIP, 30, b"A"), DAMAGED),
    "local compression": (changed(PLAIN_ZIP, 8, b"\x08"), DAMAGED),
    "zip64 count lies": (changed(TORCH, -66, b"\1"), DAMAGED),
    "zip64 directory lies": (changed(TORCH, -50, b"\0\0"), DAMAGED),
    "zip64 locator lies": (changed(TORCH, -34, b"\xff\xff"), DAMAGED),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_an_unusual_zip_is_refused(kind: str) -> None:
    """What two readers could understand differently, or what costs more than it weighs."""
    data, reason = ZIPS[kind]
    assert reason in refusal(data)


def test_a_zip_with_a_name_twice_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = zipped_pairs(
            ("a/data.pkl", described()), ("a/data/0", bytes(16)), ("a/data/0", b"\1" * 16)
        )
    assert refusal(data) == DAMAGED


def zipped_pairs(*records: tuple[str, bytes]) -> bytes:
    """As `zipped`, but names may repeat."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in records:
            archive.writestr(name, content)
    return file.getvalue()
