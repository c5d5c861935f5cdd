"""What media may be sent, fetched and decoded: the operator's ceilings, which no request lifts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from epd.config.section import MIB, Section
from epd.types import Modality


class FileLimits(Section):
    """What one file may cost, whatever it is."""

    per_request: int = Field(16, ge=0, description="most items of this kind in one request")
    max_bytes: int = Field(32 * MIB, gt=0, description="largest downloaded or inline file")
    timeout_s: float = Field(5.0, gt=0, description="to fetch one item")


class DocumentLimits(FileLimits):
    """Files that a prompt has the text of. Those that are items have the limits of items."""

    timeout_s: float = Field(10.0, gt=0, description="to fetch one item")
    max_characters: int = Field(2_000_000, gt=0, description="longest text of one file")
    max_pages: int = Field(500, ge=1, description="most pages of one PDF")


class ItemLimits(FileLimits):
    """What one item may cost, whatever it is."""

    max_tokens: int | None = Field(None, ge=1, description="most prompt tokens of one item")


class ImageLimits(ItemLimits):
    """Pictures."""

    max_pixels: int = Field(64_000_000, gt=0, description="largest picture, read from its header")
    asked_pixels: int = Field(
        16 * MIB, gt=0, description="largest picture that a request may have it scaled to"
    )
    background: tuple[int, int, int] = Field(
        (255, 255, 255), description="RGB behind what is transparent"
    )

    @field_validator("background")
    @classmethod
    def _is_colour(cls, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
        if any(not 0 <= value <= 255 for value in rgb):
            raise ValueError("three numbers from 0 to 255")
        return rgb


class VideoLimits(ItemLimits):
    """Videos."""

    per_request: int = Field(4, ge=0, description="most items of this kind in one request")
    max_bytes: int = Field(64 * MIB, gt=0, description="largest downloaded or inline file")
    timeout_s: float = Field(30.0, gt=0, description="to fetch one item")
    max_pixels: int = Field(16_000_000, gt=0, description="largest frame, read from the header")
    asked_pixels: int = Field(
        2 * MIB, gt=0, description="largest frame that a request may have it scaled to"
    )
    max_frames: int = Field(32, ge=1, description="most frames taken of one video")
    max_decoded_pixels: int = Field(
        128 * MIB, gt=0, description="all frames taken of one video together"
    )
    max_seconds: float = Field(3600.0, gt=0, description="longest video, read from the header")
    backend: Literal["pyav", "opencv", "torchcodec", "decord"] = Field(
        "pyav", description="what decodes frames; others than pyav must be installed"
    )


class AudioLimits(ItemLimits):
    """Audio clips, and the sound of videos."""

    per_request: int = Field(4, ge=0, description="most items of this kind in one request")
    timeout_s: float = Field(10.0, gt=0, description="to fetch one item")
    max_seconds: float = Field(600.0, gt=0, description="longest clip")


class TimeSeriesLimits(ItemLimits):
    """Time series."""

    per_request: int = Field(4, ge=0, description="most items of this kind in one request")
    max_values: int = Field(4_000_000, gt=0, description="most numbers in one series")


class MediaConfig(Section):
    """What media may be sent and fetched, and how large it may be."""

    allow_private_addresses: bool = Field(
        False, description="let media URLs point to loopback and private networks"
    )
    allowed_domains: tuple[str, ...] = Field(
        (), description="hosts that media may be fetched from; .a.org: all below a.org; unset: all"
    )
    allowed_local_path: Path | None = Field(
        None, description="folder that file: URLs may read; none unless set"
    )
    enable_embeds: bool = Field(False, description="take ready-made embeddings from clients")
    io_kwargs: dict[Modality, dict[str, Any]] = Field(
        {}, description="media_io_kwargs of requests that say nothing else"
    )
    processor_kwargs: dict[str, Any] = Field(
        {}, description="mm_processor_kwargs of requests that say nothing else"
    )
    request_bytes: int = Field(512 * MIB, gt=0, description="all items of one request together")
    max_redirects: int = Field(3, ge=0, description="redirects followed, each checked again")
    max_retries: int = Field(2, ge=0, description="tries again after lost connections and 5xx")
    decode_timeout_s: float = Field(60.0, gt=0, description="to decode one item")
    image: ImageLimits = ImageLimits()
    video: VideoLimits = VideoLimits()
    audio: AudioLimits = AudioLimits()
    time_series: TimeSeriesLimits = TimeSeriesLimits()
    file: DocumentLimits = DocumentLimits()

    def limits(self, modality: str) -> ItemLimits:
        """Of one modality, by its value."""
        found: ItemLimits = getattr(self, modality)
        return found
