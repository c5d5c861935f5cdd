"""Videos: what a file's container says, and chosen frames of it.

MP4, MOV, WebM, MKV and AVI with H.264, HEVC, VP8, VP9, AV1 or MPEG-4. Animated GIF and WebP are
pictures, of which the first frame counts. All limits are checked before a frame is decoded.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from epd.config import MediaConfig
from epd.config.media import VideoLimits
from epd.errors import BadMedia, TooLarge
from epd.media.backends import Backend, FrameTable, load_backend
from epd.media.containers import VIDEO_CODECS, attached, is_sound_codec, opened, video_format
from epd.media.decoded import Clip, VideoInfo
from epd.media.frames import FRAME_TYPES, check_pixels, each_frame, load_clip
from epd.media.io import MediaIO, decode_base64
from epd.media.sampling import capped, evenly
from epd.media.versions import decoding
from epd.types import ItemForm, Modality

MOST_FPS = 240
"""Frames a second that a file may have over all of its allowed length."""


class VideoIO(MediaIO[Clip]):
    """Video files, and lists of JPEG or PNG frames as base64 with commas between them.

    Frames are taken evenly where `options` say how many or how often, all of them where they do
    not, within the operator's ceiling.
    """

    modality = Modality.VIDEO

    @property
    def decoding(self) -> str:
        return decoding(self.modality, ItemForm.FILE, self.config)

    def load_bytes(self, data: bytes) -> Clip:
        video = open_video(data, self.config.video)
        indices = self._choose(video.info)
        backend = load_backend(self.config.video.backend)
        frames = np.stack(
            [np.array(f) for f in video.frames(indices, limits=self.config.video, backend=backend)]
        )
        return Clip(frames=frames, indices=tuple(indices), info=upright(video.info, frames))

    def load_base64(self, data: str, media_type: str = "") -> Clip:
        if media_type.lower() not in FRAME_TYPES:
            return super().load_base64(data, media_type)
        most = self.config.video.max_bytes
        if len(data) // 4 * 3 > most:
            raise TooLarge(f"frames larger than {most} bytes together")
        return self.load_frames([decode_base64(frame, most) for frame in data.split(",")])

    def load_frames(self, pieces: Sequence[bytes]) -> Clip:
        """A video that came as single pictures."""
        return load_clip(pieces, self.options, self.config, _stacked)

    def encode_base64(self, media: Clip) -> str:
        """As JPEGs with commas between them, of the type video/jpeg."""
        return ",".join(map(_jpeg_base64, media.frames))

    def _choose(self, info: VideoInfo) -> list[int]:
        wanted = info.num_frames if self.options.num_frames is None else self.options.num_frames
        if self.options.fps is not None:
            wanted = min(wanted, max(1, round(info.duration_s * self.options.fps)))
        return capped(evenly(wanted, info.num_frames), self.config.video.max_frames)


def _stacked(pieces: Sequence[bytes], config: MediaConfig) -> NDArray[np.uint8]:
    return np.stack(list(each_frame(pieces, config)))


def _jpeg_base64(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return base64.b64encode(file.getvalue()).decode("ascii")


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file that was judged; its frames may be asked for."""

    data: bytes
    info: VideoInfo
    table: FrameTable

    def frames(
        self, indices: Sequence[int], *, limits: VideoLimits, backend: Backend
    ) -> Iterator[NDArray[np.uint8]]:
        """Each chosen frame, uint8 [height, width, 3], valid until the next. `indices` ascend."""
        if not indices:
            raise BadMedia("no frame was chosen")
        check_pixels(len(indices), self.info.height, self.info.width, limits)
        distinct = sorted(set(indices))
        decoded = backend.frames(self.data, self.table, distinct)
        first: tuple[int, ...] = ()
        for index, pixels in zip(distinct, decoded, strict=True):
            first = first or pixels.shape
            self._check_size(pixels.shape, first)
            for _ in range(indices.count(index)):
                yield pixels

    def _check_size(self, shape: tuple[int, ...], first: tuple[int, ...]) -> None:
        """As the header says, upright or turned, and as the first one."""
        header = (self.table.height, self.table.width)
        if shape != first or shape[:2] not in (header, header[::-1]):
            raise BadMedia(
                f"a frame of {shape[1]}x{shape[0]} pixels in a video of {header[1]}x{header[0]}"
            )


def open_video(data: bytes, limits: VideoLimits) -> VideoFile:
    """Read the container. BadMedia or TooLarge for what must not be decoded."""
    if not data:
        raise BadMedia("0 bytes")
    if len(data) > limits.max_bytes:
        raise TooLarge(f"file larger than {limits.max_bytes} bytes")
    name = video_format(data)
    if name is None:
        raise BadMedia("not a readable MP4, MOV, WEBM, MKV or AVI file")
    with opened(data, name, max_pixels=limits.max_pixels) as container:
        stream = _video_stream(container)
        _check_header(container, stream, limits)
        table, span = _read_table(container, stream, name, limits)
        has_sound = any(is_sound_codec(s.codec_context.name) for s in container.streams.audio)
        info = _info(table, stream, span, has_sound=has_sound)
    if info.duration_s > limits.max_seconds:
        raise _too_long(info.duration_s, limits)
    return VideoFile(data, info, table)


def upright(info: VideoInfo, frames: NDArray[np.uint8]) -> VideoInfo:
    """The same, of the size that the frames have after they were turned."""
    return replace(info, height=frames.shape[1], width=frames.shape[2])


def _video_stream(container: Any) -> Any:
    for stream in container.streams.video:
        if attached(stream):
            continue
        codec = stream.codec_context.codec.canonical_name
        if codec not in VIDEO_CODECS:
            raise BadMedia(f"video in {codec}, which is not decoded here")
        return stream
    raise BadMedia("no video in the file")


def _check_header(container: Any, stream: Any, limits: VideoLimits) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 1 or height < 1:
        raise BadMedia("the header says no frame size")
    if width * height > limits.max_pixels:
        raise BadMedia(
            f"frames of {width}x{height} pixels, more than the limit of {limits.max_pixels}"
        )
    seconds = max(_seconds(stream.duration, stream.time_base), (container.duration or 0) / 1e6)
    if seconds > limits.max_seconds:
        raise _too_long(seconds, limits)


def _seconds(duration: int | None, unit: Any) -> float:
    return float(duration * unit) if duration and unit else 0.0


def _too_long(seconds: float, limits: VideoLimits) -> BadMedia:
    return BadMedia(f"{seconds:.6g} s long, more than the limit of {limits.max_seconds:g} s")


def _read_table(
    container: Any, stream: Any, name: str, limits: VideoLimits
) -> tuple[FrameTable, float]:
    """The table, and the seconds from its first frame to its last (0: not known)."""
    times: list[int | None] = []
    keys: list[int | None] = []
    most = int(limits.max_seconds * MOST_FPS) + 1
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard or _is_hidden(packet, stream):
            continue
        times.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
        if len(times) > most:
            raise BadMedia(f"more than {most} frames")
    if not times:
        raise BadMedia("no frames in the file")
    known = sorted(time for time in times if time is not None)
    exact = len(set(known)) == len(times) and None not in keys and bool(keys)
    exact = exact and name != "avi"  # whose times are of decoding, not of showing
    table = FrameTable(
        container=name,
        stream=container.streams.video.index(stream),
        num_frames=len(times),
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        times=tuple(known) if exact else (),
        keys=tuple(sorted(key for key in keys if key is not None)) if exact else (),
    )
    return table, _seconds(known[-1] - known[0], stream.time_base) if exact else 0.0


def _is_hidden(packet: Any, stream: Any) -> bool:
    """VP8's reference frames that are never shown have packets of their own."""
    return stream.codec_context.name in ("vp8", "libvpx") and not bytes(packet)[0] & 0x10


def _info(table: FrameTable, stream: Any, span: float, *, has_sound: bool) -> VideoInfo:
    num_frames = table.num_frames
    duration = _seconds(stream.duration, stream.time_base)
    fps = float(stream.average_rate or 0)
    measured = (num_frames - 1) / span if span > 0 else num_frames / duration if duration else 0.0
    if measured and not math.isclose(fps, measured, rel_tol=0.1):
        fps = measured  # the header's is missing or made up
    if fps <= 0:
        fps = 1.0
    return VideoInfo(
        num_frames=num_frames,
        fps=fps,
        duration_s=max(span, duration or num_frames / fps),
        width=table.width,
        height=table.height,
        has_sound=has_sound,
    )
