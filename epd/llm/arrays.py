"""Arrays and tensors of any library as numpy has them, and as files that the server reads."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save

from epd.errors import BadRequest
from epd.media import encode_audio_base64, encode_image_base64, encode_time_series_base64
from epd.media.decoded import Series, Sound

Array = NDArray[Any]

CHANNELS = (1, 3, 4)
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def as_array(value: Any) -> Array | None:
    """None for what is neither an array nor a tensor. bfloat16, which numpy has not, is widened."""
    if isinstance(value, np.ndarray):
        return value
    if not hasattr(value, "detach"):
        return None
    tensor = value.detach().cpu()
    found: Array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return found


def picture_of(value: Any, where: str) -> Image.Image:
    """From a picture, or from uint8 [height, width(, channels)], channels first or last."""
    if isinstance(value, Image.Image):
        return value if value.mode in _PNG_MODES else value.convert("RGB")
    pixels = as_array(value)
    if pixels is None:
        raise wrong(where, f"is a {type(value).__name__}, no picture")
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise wrong(where, f"is {described(pixels)}; pixels are uint8 [height, width, 3]")
    if pixels.ndim == 3 and pixels.shape[2] not in CHANNELS and pixels.shape[0] in CHANNELS:
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim == 3 and pixels.shape[2] not in CHANNELS:
        raise wrong(where, f"is {described(pixels)}; pixels are uint8 [height, width, 3]")
    if pixels.shape[2:] == (1,):
        pixels = pixels[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def png(picture: Image.Image) -> str:
    """Base64 of a file that has every pixel."""
    return encode_image_base64(picture)


def wav(samples: Array, rate: float, where: str) -> str:
    """Base64 of a file that has every sample, of several channels their mean."""
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if samples.dtype.kind != "f" or samples.ndim not in (1, 2) or not samples.size:
        raise wrong(where, f"is {described(samples)}; sound is floating point [samples]")
    if samples.ndim == 2:
        samples = samples.mean(axis=int(samples.shape[1] < samples.shape[0]))
    if rate != int(rate):
        raise wrong(where, f"has {rate} samples a second, no whole number")
    sound = Sound(samples=np.ascontiguousarray(samples, np.float32), rate=int(rate))
    return encode_audio_base64(sound)


def npy(values: Array, where: str) -> str:
    """Base64 of a time series [steps] or [steps, channels]."""
    if values.dtype.kind not in "fiu" or values.ndim not in (1, 2):
        raise wrong(where, f"is {described(values)}; a series is numbers [steps, channels]")
    table = values.astype(np.float32).reshape(len(values), -1)
    return encode_time_series_base64(Series(values=table))


def tensor_file(name: str, values: Array) -> str:
    """Base64 of safetensors with this one tensor."""
    return base64.b64encode(save({name: np.ascontiguousarray(values)})).decode("ascii")


def described(values: Array) -> str:
    """Dtype and shape, for an error."""
    return f"{values.dtype} {list(values.shape)}"


def wrong(where: str, reason: str) -> BadRequest:
    """What is wrong with an argument."""
    return BadRequest(f"{where} {reason}", param=where)
