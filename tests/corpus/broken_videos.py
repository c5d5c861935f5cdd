"""Videos that are none, lie about themselves, or would like to read something else."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from tests.corpus.entry import BAD, NO_WORSE, Entry, of_file
from tests.corpus.making import film, moving, picture, sound, sound_film, tone
from tests.corpus.videos import avi, mkv, mp4, webm


def entries() -> Iterator[Entry]:
    yield from _cut()
    yield from _empty()
    yield from _lies()
    yield from _too_much()
    yield from _references()
    yield from _disguised()


def _cut() -> Iterator[Entry]:
    whole = film()
    for share in (0.001, 0.01, 0.3, 0.6, 0.95):
        cut = whole[: max(1, int(len(whole) * share))]
        yield mp4(f"MP4 without its index, cut at {share}", cut, BAD)
    fragments = film(options={"movflags": "frag_every_frame+empty_moov+default_base_moof"})
    for share in (0.2, 0.5, 0.9):
        cut = fragments[: int(len(fragments) * share)]
        yield mp4(f"MP4 in fragments cut at {share}", cut, NO_WORSE)
    for name, make, data in (
        ("WebM", webm, film(kind="webm", codec="libvpx")),
        ("Matroska", mkv, film(kind="matroska")),
        ("AVI", avi, film(kind="avi", codec="mpeg4")),
    ):
        for share in (0.005, 0.1, 0.5, 0.9):
            cut = data[: max(4, int(len(data) * share))]
            statuses = BAD if share < 0.01 else NO_WORSE
            yield make(f"{name} cut at {share}", cut, statuses)


def _empty() -> Iterator[Entry]:
    yield mp4("only sound in MP4", sound_film(), BAD)
    yield mkv("only sound in Matroska", sound_film(kind="matroska", codec="pcm_s16le"), BAD)
    yield webm("only sound in WebM", sound_film(kind="webm", codec="libopus", rate=48_000), BAD)
    yield mp4("an index of nothing", box(b"ftyp", b"isom\0\0\2\0isom") + box(b"moov", b""), BAD)
    yield mp4("boxes inside boxes", _nested(2000), BAD)
    yield mkv("a head of Matroska and no body", film(kind="matroska")[:80], BAD)
    yield avi("a head of AVI and no body", film(kind="avi", codec="mpeg4")[:300], BAD)
    yield avi("no frames", film(moving(1)[:0], kind="avi", codec="mpeg4"), BAD)


def box(kind: bytes, data: bytes) -> bytes:
    """One box of an MP4."""
    return struct.pack(">I", len(data) + 8) + kind + data


def _nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = box(b"moov", data)
    return box(b"ftyp", b"isom\0\0\2\0isom") + data


def patched(data: bytes, kind: bytes, offset: int, value: bytes) -> bytes:
    """The file with `value` at `offset` behind the first box of this kind."""
    at = data.index(kind) + 4 + offset
    return data[:at] + value + data[at + len(value) :]


def _lies() -> Iterator[Entry]:
    """What a header says may be wrong; then what the packets say holds, or nothing does."""
    whole = film()
    most, none = b"\x7f\xff\xff\xff", bytes(4)
    for name, kind, offset, value in (
        ("a film of 2^31 units", b"mvhd", 16, most),
        ("a film of no time", b"mvhd", 16, none),
        ("no units in a second", b"mvhd", 12, none),
        ("a track of 2^31 units", b"mdhd", 16, most),
        ("no units in a track's second", b"mdhd", 12, none),
        ("2^31 frames", b"stsz", 8, most),
        ("frames of 2^31 bytes", b"stsz", 4, most),
        ("no frames", b"stsz", 8, none),
        ("no times", b"stts", 4, none),
        ("2^31 entries of times", b"stts", 4, most),
        ("times that last 2^31", b"stts", 12, most),
        ("a chunk beyond the end", b"stco", 8, most),
        ("chunks without number", b"stco", 4, most),
        ("another codec", b"stsd", 12, b"vp09"),
        ("an unknown codec", b"stsd", 12, b"evil"),
        ("a picture of 65,535", b"stsd", 40, b"\xff\xff\xff\xff"),
        ("a picture of nothing", b"stsd", 40, none),
        ("a decoder's setup of noise", b"avcC", 4, b"\xff" * 20),
    ):
        yield mp4(f"MP4 that claims {name}", patched(whole, kind, offset, value), NO_WORSE)
    noise = np.random.default_rng(4)
    for seed, share in enumerate((0.01, 0.1, 0.5)):
        data = bytearray(whole)
        start, length = whole.index(b"mdat") + 8, len(whole) // 2
        for at in noise.integers(start, start + length, int(length * share)):
            data[at] = noise.integers(256)
        yield mp4(f"packets of noise, {seed}", bytes(data), NO_WORSE)
    riff = bytearray(film(kind="avi", codec="mpeg4"))
    at = riff.index(b"avih") + 8
    riff[at + 16 : at + 20] = b"\xff\xff\xff\x7f"  # frames
    riff[at : at + 4] = bytes(4)  # microseconds of one
    yield avi("AVI that claims 2^31 frames", bytes(riff), NO_WORSE)


def _too_much() -> Iterator[Entry]:
    """Over the limits of the cluster that is asked: its settings are beside the test."""
    day = [0, 86_400_000]
    yield mkv("two frames a day apart", film(moving(2), kind="matroska", times=day), BAD, "s long")
    large = film(moving(1, 16, 16).repeat(150, 1).repeat(200, 2))
    yield mp4("a frame of 3200 x 2400", large, BAD, "pixels")
    long = film(moving(1, 16, 16).repeat(400, 0), fps=1)
    yield mp4("four hundred seconds", long, BAD, "s long")


def _references() -> Iterator[Entry]:
    playlists = {
        "HLS of a file": "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "HLS of a site": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n",
        "HLS of a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="file:///etc/passwd"\n'
        "#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n",
        "HLS of concat": "#EXTM3U\n#EXTINF:1,\nconcat:/etc/passwd|/etc/hosts\n#EXT-X-ENDLIST\n",
        "HLS of a subfile": "#EXTM3U\n#EXTINF:1,\nsubfile,,start,0,end,9,,:/etc/passwd\n",
        "a list of files": "ffconcat version 1.0\nfile /etc/passwd\nduration 1\n",
        "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
        "<AdaptationSet><Representation><BaseURL>file:///etc/passwd</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>",
        "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        "ASX": '<asx version="3.0"><entry><ref href="file:///etc/passwd"/></entry></asx>',
        "RealText": "rtsp://127.0.0.1:1/a",
        "a lavfi graph": "movie=/etc/passwd",
        "a list of pictures": "image2:/etc/passwd",
        "AviSynth": 'DirectShowSource("/etc/passwd")',
        "VPlayer subtitles": "00:00:01:file:///etc/passwd",
    }
    for name, text in playlists.items():
        for make in (mp4, webm) if "HLS" in name else (mp4,):
            yield make(f"{name} ({make.args[1]})", text.encode(), BAD)
    reference = b"\0\0\0\0" + b"file:///etc/passwd\0"
    whole = film()
    inside = whole.replace(b"\0\0\0\x0curl \0\0\0\1", b"\0\0\0\x0calis\0\0\0\0", 1)
    assert inside != whole
    yield mp4("MP4 whose data are elsewhere", inside, NO_WORSE)
    yield mp4("MP4 with a stray reference", whole + box(b"url ", reference), NO_WORSE)


def _disguised() -> Iterator[Entry]:
    for name, data in {
        "a picture": picture("JPEG"),
        "a PNG": picture(),
        "WAV": sound(),
        "MP3": sound(kind="MP3"),
        "HTML": b"<!doctype html><video src=file:///etc/passwd>",
        "zeros": bytes(50_000),
        "noise": np.random.default_rng(3).bytes(30_000),
        "one byte": b"\0",
        "text": b"1\n00:00:01,000 --> 00:00:02,000\nhello\n",
        "an ELF file": b"\x7fELF\2\1\1" + bytes(60),
        "raw frames": moving(2).tobytes(),
        "raw sound": tone().tobytes(),
    }.items():
        yield mp4(f"{name} that says MP4", data, BAD)
    yield of_file("video", "video/x-unknown", "an unknown type", bytes(100), (400, 422))
