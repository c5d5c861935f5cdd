"""Parts that are wrong before any decoder sees them, and videos that come as single frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from PIL import Image

from tests.corpus.entry import (
    BAD,
    NO_WORSE,
    REFUSED,
    TOO_LARGE,
    Entry,
    base64_text,
    data_url,
    url_part,
)
from tests.corpus.making import moving, picture, scene, sound
from tests.corpus.videos import frames_url, jpegs

MOST_FRAMES = 64
"""So many are taken of one list; the cluster's own limit is set to it."""


def entries() -> Iterator[Entry]:
    yield from _urls()
    yield from _shapes()
    yield from _frame_lists()


def _urls() -> Iterator[Entry]:
    good = base64_text(picture())
    for name, url in {
        "no data": "data:image/png;base64,",
        "no base64": "data:image/png;base64,@@@@",
        "base64 cut short": f"data:image/png;base64,{good[:41]}",
        "base64 with padding inside": "data:image/png;base64,AA==AA==",
        "no comma": "data:image/png;base64",
        "no marker": f"data:image/png,{good}",
        "another scheme": "ftp://127.0.0.1/a.png",
        "a path": "/etc/passwd",
        "a file": "file:///etc/passwd",
        "a file on a host": "file://example.invalid/etc/passwd",
        "a scheme in capitals": "FILE:///etc/passwd",
        "script": "javascript:alert(1)",
        "nothing": "",
        "no host": "http:///a.png",
        "a port of words": "http://127.0.0.1:http/a.png",
        "a port of 99999": "http://127.0.0.1:99999/a.png",
        "a null byte": "http://127.0.0.1\0/a.png",
        "a line break": "http://127.0.0.1/\r\nHost: evil/a.png",
        "a lone surrogate": "data:image/png;base64,\ud800",
    }.items():
        yield Entry(f"url: {name}", url_part("image", url), REFUSED)
    yield Entry(
        "url: base64 over lines",
        url_part("image", _lines(data_url(picture(), "image/png"))),
        (200, 400),
    )
    parameters = f"data:image/png;name=a.png;base64,{good}"
    yield Entry("url: a name in it", url_part("image", parameters), (200, 400))
    capitals = f"DATA:image/png;BASE64,{good}"
    yield Entry("url: in capitals", url_part("image", capitals), (200, 400))


def _lines(url: str) -> str:
    head, _, data = url.partition(",")
    return head + "," + "\n".join(data[at : at + 76] for at in range(0, len(data), 76))


def _shapes() -> Iterator[Entry]:
    """The JSON around the media."""
    good = data_url(picture(), "image/png")
    wav = base64_text(sound())
    for name, part in {
        "a URL that is a number": {"type": "image_url", "image_url": {"url": 5}},
        "no URL": {"type": "image_url", "image_url": {}},
        "a list of URLs": {"type": "image_url", "image_url": {"url": [good]}},
        "an unknown type": {"type": "smell_url", "smell_url": {"url": good}},
        "no type": {"url": good},
        "a type that is a list": {"type": ["image_url"], "image_url": {"url": good}},
        "sound without a format": {"type": "input_audio", "input_audio": {"data": 5}},
        "sound that is no base64": {
            "type": "input_audio",
            "input_audio": {"data": "@@@", "format": "wav"},
        },
        "sound of no bytes": {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        "sound in an unknown format": {
            "type": "input_audio",
            "input_audio": {"data": wav, "format": "../../etc/passwd"},
        },
        "a time series": {"type": "time_series_url", "time_series_url": {"url": good}},
        "a uuid nobody sent": {"type": "image_url", "image_url": {}, "uuid": "unknown"},
        "a uuid that is a path": {"type": "image_url", "image_url": {}, "uuid": "../../x"},
        "a uuid that is a number": {"type": "image_url", "image_url": {"url": good}, "uuid": 5},
    }.items():
        statuses = (200, 400) if name == "sound in an unknown format" else REFUSED
        yield Entry(f"part: {name}", part, statuses)


def _frame_lists() -> Iterator[Entry]:
    frames = jpegs(4)
    empty = f"data:video/jpeg;base64,{base64_text(frames[0])},,{base64_text(frames[1])}"
    garbage = frames_url(*frames) + ",@@@@"
    pngs = [picture("PNG", Image.fromarray(frame)) for frame in moving(4)]
    bomb = picture("JPEG", Image.new("L", (8, 8)))
    at = bomb.index(b"\xff\xc0") + 5
    huge = bomb[:at] + b"\xfd\xe8\xfd\xe8" + bomb[at + 4 :]
    for name, url, statuses, word in (
        ("four JPEGs", frames_url(*frames), (200,), ""),
        ("one JPEG", frames_url(frames[0]), (200,), ""),
        ("as many as are taken", frames_url(*jpegs(32, 32, 32)), (200,), ""),
        ("PNGs that say JPEG", frames_url(*pngs), NO_WORSE, ""),
        ("none", "data:video/jpeg;base64,", REFUSED, ""),
        ("an empty one", empty, (400, 422), ""),
        ("a last one that is no base64", garbage, REFUSED, ""),
        ("two sizes", frames_url(*frames, picture("JPEG", scene(60, 44))), BAD, "size"),
        ("a frame that is cut", frames_url(*frames, frames[0][:300]), BAD, ""),
        ("a frame that is a page", frames_url(*frames, b"<html>"), BAD, ""),
        ("a frame of 65,000", frames_url(frames[0], huge), BAD, "pixels"),
        ("ten thousand", frames_url(*frames[:1] * 10_000), (400, *TOO_LARGE), "frames"),
    ):
        yield Entry(f"frames: {name}", url_part("video", url), statuses, word)
    yield from _asked()


def _asked() -> Iterator[Entry]:
    """Facts about a list of frames, and wishes, that make no sense."""
    part = url_part("video", frames_url(*jpegs(4)))
    right: dict[str, Any] = {"fps": 2, "frames_indices": [0, 5, 10, 15], "total_num_frames": 20}
    yield Entry("asked: true facts", part, (200,), "", _io(right))
    wrong: dict[str, dict[str, Any]] = {
        "indices that are too few": {"frames_indices": [0, 1]},
        "indices below nothing": {"frames_indices": [-5, 0, 5, 10]},
        "indices backwards": {"frames_indices": [3, 2, 1, 0]},
        "indices beyond the end": {"frames_indices": [0, 1, 2, 50], "total_num_frames": 9},
        "no frames": {"num_frames": 0},
        "frames below nothing": {"num_frames": -1},
        "no rate": {"fps": 0},
        "a rate below nothing": {"fps": -1.0},
        "a rate that is a word": {"fps": "fast"},
        "a duration below nothing": {"duration": -1},
        "an unknown wish": {"backend": "shell"},
    }
    for name, facts in wrong.items():
        yield Entry(f"asked: {name}", part, (400, 422), "", _io(facts))
    for name, kwargs in {
        "a remote code revision": {"code_revision": "main"},
        "a device": {"device": "cuda:9"},
        "a size of 2^40": {"size": {"shortest_edge": 1 << 40, "longest_edge": 1 << 40}},
        "pixels below nothing": {"min_pixels": -1, "max_pixels": -1},
        "a patch of nothing": {"patch_size": 0},
    }.items():
        image = url_part("image", data_url(picture(), "image/png"))
        extra = {"mm_processor_kwargs": kwargs}
        yield Entry(f"asked: {name}", image, (400, 413, 422), "", extra)


def _io(video: dict[str, Any]) -> dict[str, Any]:
    return {"media_io_kwargs": {"video": video}}
