"""Where the frames of a video are: read from its packets, none of which is decoded for it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTable:
    """`times` of all frames in the order in which they are shown, `keys` of those to start from.

    Both ascend, in the stream's own unit. A file whose times are missing or not unique has none,
    and its frames can only be counted from the first on.
    """

    container: str
    stream: int
    num_frames: int
    width: int
    height: int
    times: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()

    def key_before(self, time: int) -> int:
        """The last place at or before `time` where decoding can start."""
        return self.keys[max(0, bisect_right(self.keys, time) - 1)]
