"""What turns bytes into media, for content keys. Loads none of it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from epd.config.media import MediaConfig
from epd.types import ItemForm, Modality

# Raised when our own decoding changes what comes out of equal bytes.
REVISION = 1

_SOUND = ("soundfile", "av", "soxr")
_PACKAGES = {
    Modality.IMAGE: ("pillow",),
    Modality.VIDEO: ("av", "soxr"),
    Modality.AUDIO: _SOUND,
    Modality.TIME_SERIES: ("numpy", "soundfile"),
}
_BACKENDS = {
    "pyav": ("av",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "torchcodec": ("torchcodec",),
    "decord": ("decord",),
}


def decoding(modality: Modality, form: ItemForm, config: MediaConfig) -> str:
    """Libraries with their versions, and the settings that shape what they give."""
    if form is ItemForm.EMBEDS:
        return f"{REVISION}"
    packages = _PACKAGES[modality]
    settings = ""
    if modality is Modality.VIDEO:
        packages += _BACKENDS[config.video.backend]
        settings = f"{config.video.backend} {config.video.max_frames}"
    if modality is Modality.IMAGE or form is ItemForm.FRAMES:
        packages += ("pillow",)
        settings += f"{config.image.background}"
    return f"{REVISION} {settings} {' '.join(map(_version, packages))}"


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
