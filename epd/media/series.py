"""Time series: numbers from .npy, .csv and .wav files, never more than the limit says."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import soundfile
from numpy.typing import NDArray

from epd.config.media import TimeSeriesLimits
from epd.errors import BadMedia, TooLarge
from epd.media.decoded import Series
from epd.media.io import MediaIO
from epd.media.versions import decoding
from epd.types import ItemForm, Modality

_NPY = b"\x93NUMPY"
_NPY_KINDS = frozenset("fiu")
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

Values = NDArray[np.float32]


class TimeSeriesIO(MediaIO[Series]):
    """Tables of numbers."""

    modality = Modality.TIME_SERIES

    @property
    def decoding(self) -> str:
        return decoding(self.modality, ItemForm.FILE, self.config)

    def load_bytes(self, data: bytes) -> Series:
        return load_series(data, self.config.time_series)

    def encode_base64(self, media: Series) -> str:
        """As a .npy, without loss."""
        file = io.BytesIO()
        np.save(file, media.values, allow_pickle=False)
        return base64.b64encode(file.getvalue()).decode("ascii")


def load_series(data: bytes, limits: TimeSeriesLimits) -> Series:
    """BadMedia or TooLarge for what is not a bounded table of finite numbers."""
    if not data:
        raise BadMedia("0 bytes")
    if len(data) > limits.max_bytes:
        raise TooLarge(f"file larger than {limits.max_bytes} bytes")
    rate: float | None = None
    if data.startswith(_NPY):
        values = _npy(data, limits)
    elif data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        values, rate = _wav(data, limits)
    else:
        values = _csv(data, limits)
    if not values.size:
        raise BadMedia("no numbers in the file")
    if not np.isfinite(values).all():
        raise BadMedia("numbers that are not finite, or too large for single precision")
    return Series(values=np.ascontiguousarray(values), rate=rate)


def _npy(data: bytes, limits: TimeSeriesLimits) -> Values:
    file = io.BytesIO(data)
    try:
        header = _NPY_HEADERS[np.lib.format.read_magic(file)]
        shape, fortran, dtype = header(file, max_header_size=1024)
    except Exception as error:  # numpy parses a Python literal and raises an open set of types
        raise BadMedia("damaged .npy header") from error
    if dtype.kind not in _NPY_KINDS or dtype.hasobject:
        raise BadMedia(f".npy of {dtype}; real numbers are taken")
    if len(shape) not in (1, 2) or any(length < 0 for length in shape):
        raise BadMedia(f".npy of shape {shape}; [steps] or [steps, channels] is taken")
    count = math.prod(shape)
    _check(count, limits)
    if len(data) - file.tell() != count * dtype.itemsize:
        raise BadMedia("truncated .npy, or one with bytes behind its numbers")
    values = np.frombuffer(data, dtype, count, file.tell())
    values = values.reshape(shape, order="F" if fortran else "C")
    with np.errstate(over="ignore"):
        return values.astype(np.float32).reshape(shape[0], -1 if count else 1)


def _wav(data: bytes, limits: TimeSeriesLimits) -> tuple[Values, float]:
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check(file.frames * file.channels, limits)
            return file.read(file.frames, dtype="float32", always_2d=True), float(file.samplerate)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise BadMedia("damaged WAV file") from error


def _csv(data: bytes, limits: TimeSeriesLimits) -> Values:
    """Commas between numbers; a first line that is not all numbers names the columns."""
    _check(data.count(b",") + data.count(b"\n"), limits)
    try:
        lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise BadMedia("not a readable .npy, .csv or .wav file") from None
    if lines and not _are_numbers(lines[0]):
        del lines[0]
    if not lines:
        raise BadMedia("no numbers in the file")
    try:
        with np.errstate(over="ignore"):
            return np.loadtxt(lines, np.float32, delimiter=",", ndmin=2, comments=None)
    except ValueError as error:
        raise BadMedia(f"not a table of numbers: {str(error)[:100]}") from error


def _are_numbers(line: str) -> bool:
    try:
        for cell in line.split(","):
            float(cell)
    except ValueError:
        return False
    return True


def _check(count: int, limits: TimeSeriesLimits) -> None:
    if count > limits.max_values:
        raise BadMedia(f"{count} numbers, more than the limit of {limits.max_values}")
