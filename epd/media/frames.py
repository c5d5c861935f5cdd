"""Videos that come as single pictures, and what is known of the video they were taken from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from epd.config.media import ImageLimits, MediaConfig, VideoLimits
from epd.errors import BadMedia, BadRequest, TooLarge
from epd.media.decoded import Clip, VideoInfo
from epd.media.image import load_image
from epd.media.sampling import capped, evenly
from epd.types import MediaOptions

FRAME_TYPES = ("video/jpeg", "video/png")
"""Media types of lists of frames."""


def load_clip(
    pieces: Sequence[bytes],
    options: MediaOptions,
    config: MediaConfig,
    decode: Callable[[Sequence[bytes], MediaConfig], NDArray[np.uint8]],
) -> Clip:
    """The clip that these pictures are of. `decode` gets those that are taken."""
    if sum(map(len, pieces)) > config.video.max_bytes:
        raise TooLarge(f"frames larger than {config.video.max_bytes} bytes together")
    indices = source_indices(len(pieces), options)
    taken = chosen_frames(len(pieces), options, config.video.max_frames)
    frames = decode([pieces[place] for place in taken], config)
    info = source_info(indices, options, width=frames.shape[2], height=frames.shape[1])
    return Clip(frames=frames, indices=tuple(indices[place] for place in taken), info=info)


def each_frame(pieces: Sequence[bytes], config: MediaConfig) -> Iterator[NDArray[np.uint8]]:
    """uint8 [height, width, 3] of pictures of one size. BadMedia names the one at fault."""
    if not pieces:
        raise BadMedia("no frames")
    limits = ImageLimits(
        max_bytes=config.video.max_bytes,
        max_pixels=config.video.max_pixels,
        background=config.image.background,
    )
    first: tuple[int, ...] = ()
    for number, piece in enumerate(pieces):
        try:
            pixels = np.asarray(load_image(piece, limits))
        except BadRequest as error:
            raise type(error)(f"frame {number}: {error.message}") from error
        if not first:
            first = pixels.shape
            check_pixels(len(pieces), first[0], first[1], config.video)
        if pixels.shape != first:
            raise BadMedia(
                f"frame {number}: {pixels.shape[1]}x{pixels.shape[0]} pixels,"
                f" the first has {first[1]}x{first[0]}"
            )
        yield pixels


def check_pixels(count: int, height: int, width: int, limits: VideoLimits) -> None:
    """BadMedia when all frames that are taken of one video are too much together."""
    pixels = count * height * width
    if pixels > limits.max_decoded_pixels:
        raise BadMedia(
            f"{count} frames of {width}x{height} are {pixels} pixels,"
            f" more than the limit of {limits.max_decoded_pixels}"
        )


def chosen_frames(count: int, options: MediaOptions, most: int) -> list[int]:
    """Which of `count` frames that came are taken: all, within what was asked for and `most`."""
    wanted = count if options.num_frames is None else options.num_frames
    return capped(evenly(wanted, count), most)


def source_indices(count: int, options: MediaOptions) -> tuple[int, ...]:
    """Where in the source the frames that came were. BadRequest for indices that cannot be."""
    total = options.total_num_frames
    indices = options.frames_indices
    if not indices:
        if total is not None and total < count:
            raise BadRequest(f"{count} frames came of a video of {total}")
        return tuple(evenly(count, total or count))
    if len(indices) != count:
        raise BadRequest(f"{len(indices)} frames_indices for {count} frames")
    ascending = all(a <= b for a, b in zip(indices, indices[1:], strict=False))
    if indices[0] < 0 or not ascending or (total is not None and indices[-1] >= total):
        raise BadRequest("frames_indices that do not ascend from 0 to total_num_frames")
    return indices


def source_info(
    indices: Sequence[int], options: MediaOptions, *, width: int, height: int
) -> VideoInfo:
    """The video that the frames were taken from: as its sender says, else one frame a second."""
    num_frames = options.total_num_frames or indices[-1] + 1
    fps, duration = options.source_fps, options.duration_s
    if fps is None:
        fps = num_frames / duration if duration else 1.0
    return VideoInfo(
        num_frames=num_frames,
        fps=fps,
        duration_s=duration or num_frames / fps,
        width=width,
        height=height,
    )
