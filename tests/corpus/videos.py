"""Videos that are odd and right."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from PIL import Image

from tests.corpus.entry import BAD, NO_WORSE, Entry, base64_text, of_file
from tests.corpus.making import film, moving, picture, tone

mp4 = partial(of_file, "video", "video/mp4")
webm = partial(of_file, "video", "video/webm")
mkv = partial(of_file, "video", "video/x-matroska")
avi = partial(of_file, "video", "video/x-msvideo")
mov = partial(of_file, "video", "video/quicktime")

_ONE = 0x10000
_IDENTITY = struct.pack(">9i", _ONE, 0, 0, 0, _ONE, 0, 0, 0, 0x40000000)
_TURNS = {
    90: (0, _ONE, -_ONE, 0),
    180: (-_ONE, 0, 0, -_ONE),
    270: (0, -_ONE, _ONE, 0),
}


def entries() -> Iterator[Entry]:
    yield from _kinds()
    yield from _rates()
    yield from _shapes()
    yield from _with_sound()


def _kinds() -> Iterator[Entry]:
    yield mp4("H.264 in MP4", film())
    yield mp4("H.265 in MP4", film(codec="libx265"))
    yield mp4("AV1 in MP4", film(codec="libsvtav1"))
    yield mp4("MPEG-4 in MP4", film(codec="mpeg4"))
    yield mkv("H.264 in Matroska", film(kind="matroska"))
    yield webm("VP8 in WebM", film(kind="webm", codec="libvpx"))
    yield webm("VP9 in WebM", film(kind="webm", codec="libvpx-vp9"))
    yield avi("MPEG-4 in AVI", film(kind="avi", codec="mpeg4"))
    yield mov("H.264 in QuickTime", film(kind="mov"))
    yield mov("MP4 that says QuickTime", film())
    yield webm("MP4 that says WebM", film())
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    yield mp4("fragments, no duration in front", film(options=fragments))
    yield webm("WebM as it is streamed", film(kind="webm", codec="libvpx", options={"live": "1"}))
    yield mp4("MP4 and then noise", film() + bytes(range(256)) * 4)
    yield mp4("frames that refer ahead", film(codec_options={"preset": "medium", "bf": "3"}))
    # Containers and codecs beyond the usual are nobody's loss.
    yield avi("Motion JPEG", film(kind="avi", codec="mjpeg", pixels="yuvj420p"), NO_WORSE)
    yield of_file("video", "video/mp2t", "MPEG-TS", film(kind="mpegts"), NO_WORSE)
    yield of_file("video", "video/x-flv", "FLV", film(kind="flv"), NO_WORSE)
    yield of_file("video", "video/x-ms-wmv", "WMV", film(kind="asf", codec="wmv2"), NO_WORSE)
    yield mkv("FFV1 in Matroska", film(kind="matroska", codec="ffv1"), NO_WORSE)
    gif = film(kind="gif", codec="gif", pixels="rgb8")
    yield of_file("video", "image/gif", "animated GIF", gif, NO_WORSE)


def _rates() -> Iterator[Entry]:
    yield mp4("one frame", film(moving(1)))
    yield mp4("two frames", film(moving(2)))
    yield mp4("three frames", film(moving(3)))
    yield mp4("one frame a second", film(fps=1))
    yield mp4("sixty frames a second", film(moving(60), fps=60))
    yield mp4("more frames than are taken", film(moving(90, 32, 32), fps=30))
    uneven = [0, 100, 110, 500, 900, 910, 2000, 2100]
    late = [5000 + 250 * at for at in range(8)]
    for kind, make in (("mp4", mp4), ("matroska", mkv)):
        yield make(f"frames at uneven times in {kind}", film(kind=kind, times=uneven))
        yield make(f"a first frame at 5 s in {kind}", film(kind=kind, times=late))


def _shapes() -> Iterator[Entry]:
    yield mp4("odd width and height", film(moving(4, 65, 33), pixels="yuv444p"))
    yield mp4("16 x 16", film(moving(4, 16, 16)))
    yield mp4("2 x 2", film(moving(4, 2, 2), pixels="yuv444p"), NO_WORSE)
    yield avi("1 x 1", film(moving(4, 1, 1), kind="avi", codec="ffv1", pixels="bgr0"), NO_WORSE)
    yield mp4("a film as thin as a hair", film(moving(4, 2, 802)), BAD, "ratio")
    yield mp4("no subsampling", film(pixels="yuv444p"))
    yield mp4("ten bits", film(codec="libx265", pixels="yuv420p10le"))
    yield mp4("grey", film(codec="libx264", pixels="gray"))
    for degrees, (a, b, c, d) in _TURNS.items():
        yield mp4(f"turned by {degrees}", turned(film(), (a, b, c, d)))
    yield mp4("sheared", turned(film(), (_ONE, _ONE // 3, 0, _ONE)), NO_WORSE)


def turned(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An MP4 with this display matrix in its track. The whole film's comes first in the file."""
    a, b, c, d = matrix
    first = data.index(_IDENTITY)
    at = data.index(_IDENTITY, first + 1)
    return data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000) + data[at + 36 :]


def _with_sound() -> Iterator[Entry]:
    yield mp4("with sound", film(samples=tone(2)))
    stereo = film(samples=tone(2, 48_000, 2), rate=48_000, layout="stereo")
    yield mp4("with stereo sound", stereo)
    yield mp4("with 5.1 sound", film(samples=tone(2, 48_000, 6), rate=48_000, layout="5.1"))
    opus = film(
        kind="webm", codec="libvpx", samples=tone(2, 48_000), rate=48_000, sound_codec="libopus"
    )
    yield webm("with Opus sound", opus)
    pcm = film(kind="avi", codec="mpeg4", samples=tone(2), sound_codec="pcm_s16le")
    yield avi("with PCM sound", pcm, NO_WORSE)
    yield mp4("with sound longer than its frames", film(samples=tone(6)))
    yield mp4("with hardly any sound", film(samples=tone(0.05)))
    mp3 = film(kind="matroska", samples=tone(2), sound_codec="libmp3lame")
    yield mkv("with MP3 sound", mp3)


def frames_url(*frames: bytes, mime: str = "video/jpeg") -> str:
    """A video that comes as single frames."""
    return f"data:{mime};base64," + ",".join(map(base64_text, frames))


def jpegs(num: int = 4, width: int = 64, height: int = 48) -> list[bytes]:
    """The frames of `moving` as pictures."""
    images = [Image.fromarray(frame) for frame in moving(num, width, height)]
    return [picture("JPEG", image, quality=95) for image in images]
