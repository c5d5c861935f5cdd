"""Time series: tables of numbers, bounded and finite."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from epd.config.media import TimeSeriesLimits
from epd.errors import BadMedia, TooLarge
from epd.media.decoded import Series
from epd.media.series import TimeSeriesIO, load_series
from tests.media.clips import sound_file


def npy(array: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), **how)
    return file.getvalue()


def loaded(data: bytes, **limits: int) -> Series:
    return load_series(data, TimeSeriesLimits(**limits))


TABLE = np.arange(6, dtype=np.float64).reshape(3, 2)


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (npy(TABLE), TABLE),
        (npy(np.asfortranarray(TABLE)), TABLE),
        (npy(TABLE.astype(">i4")), TABLE),
        (npy(TABLE.astype(np.float16), version=(2, 0)), TABLE),
        (npy(np.arange(4)), np.arange(4)[:, None]),
        (b"0,1\n2,3\n4,5\n", TABLE),
        (b"\xef\xbb\xbftime,value\r\n0,1\r\n2,3\r\n4,5", TABLE),
        (b"1\n\n2.5e0\n", np.array([[1], [2.5]])),
    ],
)
def test_tables_of_every_kind_are_read(data: bytes, values: NDArray[Any]) -> None:
    series = loaded(data)
    assert series.values.dtype == np.float32
    assert series.rate is None
    assert np.array_equal(series.values, values)


def test_a_wav_has_its_channels_and_its_rate() -> None:
    samples = np.array([[0.5, -0.5], [0.25, 0.0]], np.float32)
    series = loaded(sound_file(samples, 8_000, "WAV", "FLOAT"))
    assert np.array_equal(series.values, samples)
    assert series.rate == 8_000.0


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "0 bytes"),
        (b"\xff\xfe\x00", "not a readable .npy, .csv or .wav file"),
        (b"a,b\n", "no numbers in the file"),
        (b"\n\n", "no numbers in the file"),
        (b"1,2\n3\n", "not a table of numbers"),
        (b"1,2\nx,y\n", "not a table of numbers"),
        (b"1,nan\n", "numbers that are not finite"),
        (b"1e300\n", "numbers that are not finite"),
        (npy([np.inf]), "numbers that are not finite"),
        (npy(np.zeros((0, 3))), "no numbers in the file"),
        (npy(np.zeros((2, 2, 2))), ".npy of shape (2, 2, 2)"),
        (npy(np.float32(3)), ".npy of shape ()"),
        (npy(["a"]), ".npy of <U1"),
        (npy([1j]), ".npy of complex128"),
        (npy(np.zeros(3, [("a", "f4")])), ".npy of [('a', '<f4')]"),
        (npy(TABLE)[:-1], "truncated .npy"),
        (npy(TABLE) + b"x", "truncated .npy, or one with bytes behind"),
        (npy(TABLE)[:40], "damaged .npy header"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70_000, "damaged .npy header"),
        (sound_file(np.zeros((4, 1)), 8_000, "WAV")[:20], "damaged WAV file"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(data: bytes, text: str) -> None:
    with pytest.raises(BadMedia) as caught:
        loaded(data)
    assert caught.value.message.startswith(text)


def test_objects_are_never_unpickled() -> None:
    header = npy(np.array([None], object), allow_pickle=True)
    with pytest.raises(BadMedia, match=".npy of object"):
        loaded(header)


@pytest.mark.parametrize("shape", ["(-1,)", "(10**30,)", "(4294967296, 4294967296)", "(1.5,)"])
def test_shapes_that_lie_allocate_nothing(shape: str) -> None:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    with pytest.raises(BadMedia):
        loaded(data)


@pytest.mark.parametrize(
    "data",
    [npy(TABLE), b"0,1\n2,3\n4,5\n", sound_file(np.zeros((3, 2)), 8_000, "WAV")],
)
def test_no_more_numbers_than_the_limit(data: bytes) -> None:
    assert loaded(data, max_values=6).values.size == 6
    with pytest.raises(BadMedia, match="numbers, more than the limit of 5"):
        loaded(data, max_values=5)


def test_a_file_over_its_bytes_is_too_large() -> None:
    with pytest.raises(TooLarge):
        loaded(npy(np.zeros(1000)), max_bytes=100)


def test_written_as_base64_it_is_read_back_without_loss() -> None:
    series = loaded(npy(TABLE))
    again = TimeSeriesIO().load_base64(TimeSeriesIO().encode_base64(series))
    assert np.array_equal(again.values, series.values)
