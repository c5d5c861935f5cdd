"""How the Qwen-VL families' video processors are called: which frames they take, and on what."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epd.errors import BadRequest
from epd.media.decoded import Clip, VideoInfo
from epd.types import MediaOptions


def sample_frames(
    processor: Any, info: VideoInfo, options: MediaOptions, *, least: int
) -> list[int]:
    """The processor's own sampling with its own settings where the options are silent.

    A video with less than `least` frames gives all of them; the processor does not count so far.
    """
    total = info.num_frames
    asked = _asked(processor, total, options)
    if asked is None or total < least:
        return list(range(total))
    from transformers.video_utils import VideoMetadata

    try:
        metadata = VideoMetadata(total_num_frames=total, fps=info.fps)
        indices = processor.sample_frames(metadata, **asked)
    except (ValueError, ArithmeticError) as error:
        raise BadRequest(f"frames cannot be chosen with {asked}: {error}") from error
    return [min(int(index), total - 1) for index in indices]


def _asked(processor: Any, total: int, options: MediaOptions) -> dict[str, Any] | None:
    """What the processor is asked for; None for all frames."""
    if options.fps is not None:
        if not 0 < options.fps < math.inf:
            raise BadRequest(f"fps is {options.fps}, not a positive number", param="fps")
        return {"fps": options.fps}
    if options.num_frames is not None:
        if options.num_frames < 1:
            raise BadRequest("num_frames is not positive", param="num_frames")
        # Exactly as many as asked; the processor itself repeats an odd one out.
        return {"num_frames": min(options.num_frames, total), "temporal_patch_size": 1}
    if processor.do_sample_frames and (processor.fps or processor.num_frames):
        return {}
    return None


def checked(clip: Clip) -> Clip:
    """ValueError for a clip that no processor can take."""
    if not clip.indices:
        raise ValueError("it has no frames")
    if not 0 < clip.info.fps < math.inf:
        raise ValueError("no frame rate is known")
    return clip


def process_clip(processor: Any, clip: Clip, settings: dict[str, Any]) -> Any:
    """The processor's features of these frames, none left out."""
    from transformers.video_utils import VideoMetadata

    info = clip.info
    metadata = VideoMetadata(
        total_num_frames=info.num_frames,
        fps=info.fps,
        duration=info.duration_s,
        height=info.height,
        width=info.width,
        frames_indices=list(clip.indices),
    )
    return processor(
        videos=[np.require(clip.frames, requirements=["C", "W"])],
        video_metadata=[metadata],
        do_sample_frames=False,
        input_data_format="channels_last",
        return_tensors="pt",
        **settings,
    )
