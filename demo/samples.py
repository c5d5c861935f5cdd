"""Files to try the embedded model on: pictures, a clip, a sound.

    python -m demo.samples FOLDER

Or from Python: `picture`, `clip` and `beeps` write one file each.
"""

from __future__ import annotations

import argparse
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo import sounds
from demo.drawing import filled
from demo.facts import CELLS, DIRECTIONS, TONES, Colour, Ground, Scene, Thing
from demo.seeds import lots
from demo.sounds import RATE, Heard

WHITE: Colour = (255, 255, 255)


def scene(
    *shown: str,
    size: tuple[int, int] = (448, 448),
    ground: Colour = WHITE,
    radius: float | None = None,
) -> Scene:
    """Of words such as "red circle center" and "blue square top left"."""
    things = []
    for words in shown:
        colour, shape, *cell = words.split()
        place = CELLS.index(" ".join(cell) or "center")
        things.append(
            Thing(
                colour=colour,
                shape=shape,
                rgb=TONES[colour][0],
                x=(place % 3 * 2 + 1) / 6,
                y=(place // 3 * 2 + 1) / 6,
                radius=radius or (0.3 if len(shown) == 1 else 0.15),
            )
        )
    behind = Ground(rgb=ground, other=ground)
    return Scene(width=size[0], height=size[1], ground=behind, things=tuple(things))


def picture(path: Path, drawn: Scene) -> None:
    """PNG or JPEG, by its name."""
    filled.draw(drawn, times=3).save(path)


def clip(
    path: Path,
    shown: str,
    direction: str | None,
    *,
    size: tuple[int, int] = (320, 320),
    seconds: float = 2.0,
    rate: int = 12,
) -> None:
    """ "green star" that moves; an MP4 or a GIF, by its name."""
    frames = [filled.draw(each, times=3) for each in _moving(shown, direction, size, seconds, rate)]
    if path.suffix == ".gif":
        each = round(1000 / rate)
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=each, loop=0)
    else:
        _film(path, frames, rate)


def _moving(
    shown: str, direction: str | None, size: tuple[int, int], seconds: float, rate: int
) -> list[Scene]:
    from dataclasses import replace

    still = scene(shown, size=size, radius=0.17)
    across, down = DIRECTIONS[direction] if direction else (0, 0)
    found = []
    for place in np.linspace(-0.28, 0.28, round(seconds * rate)):
        thing = replace(still.things[0], x=0.5 + across * place, y=0.5 + down * place)
        found.append(replace(still, things=(thing,)))
    return found


def _film(path: Path, frames: Sequence[Image.Image], rate: int) -> None:
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(rate))
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        read: Any = av.VideoFrame.from_image  # untyped
        for frame in frames:
            file.mux(stream.encode(read(frame)))
        file.mux(stream.encode())


def beeps(path: Path, num: int, pitch: str = "high") -> None:
    """A WAV of `num` beeps, high or low."""
    samples = sounds.sound(Heard(kind="beeps", num=num, pitch=pitch), lots("sample", num, pitch))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def write(folder: Path) -> None:
    """One of each."""
    folder.mkdir(parents=True, exist_ok=True)
    picture(folder / "circle.png", scene("red circle"))
    picture(folder / "square.png", scene("blue square"))
    picture(folder / "two.png", scene("green star top left", "orange triangle bottom right"))
    picture(
        folder / "three.jpg",
        scene("red circle left", "black square top right", "purple star bottom", size=(640, 480)),
    )
    clip(folder / "moving.mp4", "green star", "right")
    clip(folder / "falling.gif", "blue circle", "down")
    beeps(folder / "beeps.wav", 3)
    beeps(folder / "low.wav", 2, "low")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
