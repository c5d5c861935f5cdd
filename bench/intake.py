"""What does decoding behind a process boundary cost, against the libraries alone?

One thread, one decoder process, and the CPU time of both together: what a core can do in a second,
however busy the machine is. *plain* is PIL, PyAV or soundfile in this process, doing the same to
the same bytes: an upright RGB picture, the chosen frames as one array, one channel of samples at
16 kHz. *ours* is `epd.media.decoders` as the encoder's intake calls it, limits and checks included.
The two take turns in one run. What the decoder does after its answer, until it sleeps, is its too.
Pictures come as PIL pictures and, in cases of their own, as arrays, as processors take them: so
reading memory that another core has written is on the bill as well. Files are made by this program.

    python bench/intake.py --rounds 41

A table of medians goes to stderr; the last line of stdout is one JSON object with every time.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image, ImageOps

from epd.cli.environment import num_cores
from epd.config import MediaConfig
from epd.media.decoders import Decoders

RATE = 16_000
FRAMES = 32
SECONDS = 60
SETTLE_S = 0.0005
SIZES = {"448p": (448, 448), "1080p": (1920, 1080), "4k": (3840, 2160)}
LIBRARIES = ("pillow", "av", "soundfile", "soxr", "numpy")


@dataclass(frozen=True)
class Case:
    """One file, decoded in two ways. `amount` of `unit` come out of it."""

    name: str
    unit: str
    amount: float
    plain: Callable[[], object]
    ours: Callable[[], object]


class CpuMeter:
    """CPU seconds of this process and the decoder's, until the latter has nothing left to do."""

    def __init__(self, decoders: Decoders) -> None:
        (pid,) = decoders.pids
        self._theirs = ~pid << 3 | 2  # as clock_getcpuclockid() gives it

    def __call__(self, work: Callable[[], object]) -> float:
        """What this takes."""
        theirs, ours = self._idle(), time.process_time()
        work()
        ours = time.process_time() - ours
        return ours + self._idle() - theirs

    def _idle(self) -> float:
        """The decoder's time when it sleeps."""
        now, before = time.clock_gettime(self._theirs), -1.0
        while now != before:
            time.sleep(SETTLE_S)
            now, before = time.clock_gettime(self._theirs), now
        return now


def main() -> None:
    """Measure, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="timed per case and side")
    args = parser.parse_args()
    decoders = Decoders(1, MediaConfig())
    try:
        every = cases(decoders)
        decoders.series(b"1")  # it is up
        meter = CpuMeter(decoders)
        results = [measure(case, args.rounds, meter) for case in every]
    finally:
        decoders.close()
    print(
        json.dumps(
            {
                "question": "decoding behind a process boundary",
                "machine": {"cpu": platform.processor(), "cores": num_cores()},
                "versions": {name: version(name) for name in LIBRARIES},
                "workload": vars(args),
                "cases": results,
            }
        )
    )


def cases(decoders: Decoders) -> list[Case]:
    """JPEGs of three sizes, an H.264 video, and a minute of sound in two formats."""
    found = []
    for name, size in SIZES.items():
        jpeg = jpeg_file(*size)
        sides = partial(plain_picture, jpeg), partial(decoders.image, jpeg)
        found.append(Case(f"JPEG {name}", "images/s", 1, *sides))
        arrays = partial(plain_array, jpeg), partial(our_array, decoders, jpeg)
        found.append(Case(f"JPEG {name} to array", "images/s", 1, *arrays))
    h264 = video_file(*SIZES["1080p"])
    indices = range(FRAMES)
    found.append(
        Case(
            "H.264 1080p",
            "frames/s",
            FRAMES,
            lambda: plain_frames(h264, FRAMES),
            lambda: decoders.video(h264, lambda info: indices),
        )
    )
    for kind in ("MP3", "WAV"):
        sound = sound_file(kind)
        both = partial(plain_sound, sound), partial(decoders.audio, sound, RATE)
        found.append(Case(f"{kind} 44.1 kHz stereo", "audio seconds/s", SECONDS, *both))
    return found


def measure(case: Case, rounds: int, meter: CpuMeter) -> dict[str, Any]:
    """Both sides in turn, after one unmeasured round each."""
    case.plain(), case.ours()
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(rounds):
        for side in times:
            times[side].append(meter(getattr(case, side)))
    medians = {side: statistics.median(values) for side, values in times.items()}
    ratio = statistics.median(
        ours / plain for ours, plain in zip(times["ours"], times["plain"], strict=True)
    )
    rates = {side: case.amount / median for side, median in medians.items()}
    print(
        f"{case.name:22} plain {rates['plain']:9.1f}  ours {rates['ours']:9.1f} {case.unit:16}"
        f" overhead {100 * (ratio - 1):+6.1f} %",
        file=sys.stderr,
    )
    return {
        "case": case.name,
        "unit": case.unit,
        "per_core": rates,
        "overhead": ratio - 1,
        "cpu_seconds": times,
    }


# ---- plain


def plain_picture(data: bytes) -> Image.Image:
    """As anybody opens a picture who avoids Pillow's needless copies."""
    image: Image.Image = Image.open(io.BytesIO(data))
    ImageOps.exif_transpose(image, in_place=True)
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def plain_array(data: bytes) -> NDArray[np.uint8]:
    """The same, as processors take it."""
    return np.asarray(plain_picture(data))


def our_array(decoders: Decoders, data: bytes) -> NDArray[np.uint8]:
    """What processors get of our pictures."""
    return np.asarray(decoders.image(data).image)


def plain_frames(data: bytes, count: int) -> NDArray[np.uint8]:
    """The first frames, as one array."""
    frames: list[Any] = []
    with av.open(io.BytesIO(data), "r") as container:
        container.streams.video[0].thread_type = "SLICE"
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == count:
                break
    return np.stack(frames)


def plain_sound(data: bytes) -> NDArray[np.float32]:
    """Read, mixed down, resampled."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    found: NDArray[np.float32] = soxr.resample(samples.mean(axis=1), rate, RATE)
    return found


# ---- files


def scene(width: int, height: int, shift: int = 0) -> NDArray[np.uint8]:
    """Smooth shapes with some grain, as photographs have."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = rng.integers(-6, 7, (height, width, 1), dtype=np.int16)
    return np.roll(np.clip(pixels + grain, 0, 255).astype(np.uint8), shift, axis=1)


def jpeg_file(width: int, height: int) -> bytes:
    """At the quality of cameras."""
    file = io.BytesIO()
    Image.fromarray(scene(width, height)).save(file, "JPEG", quality=90)
    return file.getvalue()


def video_file(width: int, height: int) -> bytes:
    """A picture that moves sideways, 30 frames a second."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream: Any = output.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast"}
        for index in range(FRAMES):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(scene(width, height, 8 * index))))
        output.mux(stream.encode())
    return file.getvalue()


def sound_file(kind: str) -> bytes:
    """A chord in stereo."""
    at = np.arange(SECONDS * 44_100) / 44_100
    chord = sum(np.sin(2 * np.pi * hertz * at) for hertz in (220, 277, 330)) / 4
    file = io.BytesIO()
    soundfile.write(file, np.stack([chord, chord / 2], 1), 44_100, format=kind)
    return file.getvalue()


if __name__ == "__main__":
    main()
