"""Sounds that are odd and right, and sounds that are none."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

import numpy as np

from tests.corpus.broken_videos import box, patched
from tests.corpus.entry import BAD, NO_WORSE, OK, Entry, base64_text, of_file
from tests.corpus.making import RATE, film, picture, sound, sound_film, tone

wav = partial(of_file, "audio", "audio/wav")
mp3 = partial(of_file, "audio", "audio/mpeg")
ogg = partial(of_file, "audio", "audio/ogg")
flac = partial(of_file, "audio", "audio/flac")
m4a = partial(of_file, "audio", "audio/mp4")


def entries() -> Iterator[Entry]:
    yield from _kinds()
    yield from _rates()
    yield from _lengths()
    yield from _values()
    yield from _cut()
    yield from _lies()
    yield from _disguised()


def _kinds() -> Iterator[Entry]:
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        yield wav(f"WAV of {subtype}", sound(subtype=subtype))
    for subtype in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"):
        yield wav(f"WAV of {subtype}", sound(subtype=subtype), NO_WORSE)
    yield mp3("MP3", sound(kind="MP3"))
    yield mp3("stereo MP3", sound(tone(1, 44_100, 2), "MP3", 44_100))
    yield ogg("Vorbis", sound(kind="OGG", subtype="VORBIS"))
    yield ogg("Opus", sound(tone(1, 48_000), "OGG", 48_000, "OPUS"))
    yield flac("FLAC", sound(kind="FLAC"))
    yield flac("FLAC of 24 bits", sound(kind="FLAC", subtype="PCM_24"))
    yield m4a("AAC", sound_film(kind="ipod"))
    webm = sound_film(kind="webm", codec="libopus", rate=48_000)
    yield of_file("audio", "audio/webm", "Opus in WebM", webm)
    yield of_file("audio", "audio/aiff", "AIFF", sound(kind="AIFF"))
    yield of_file(
        "audio", "audio/aac", "AAC without a container", sound_film(kind="adts"), NO_WORSE
    )
    for kind in ("AU", "CAF", "W64", "RF64"):
        yield of_file("audio", "audio/wav", f"{kind} that says WAV", sound(kind=kind), NO_WORSE)
    yield wav("MP3 that says WAV", sound(kind="MP3"))
    yield mp3("FLAC that says MP3", sound(kind="FLAC"))
    tagged = b"ID3\x03\0\0" + _syncsafe(40_010) + b"APIC" + struct.pack(">I", 40_000) + b"\0\0"
    yield mp3("MP3 behind a large picture", tagged + bytes(40_000) + sound(kind="MP3"), NO_WORSE)
    data = {"data": base64_text(sound()), "format": "wav"}
    yield Entry("audio: as input_audio", {"type": "input_audio", "input_audio": data})


def _syncsafe(size: int) -> bytes:
    return bytes(size >> shift & 127 for shift in (21, 14, 7, 0))


def _rates() -> Iterator[Entry]:
    for rate in (8000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000):
        yield wav(f"{rate} Hz", sound(tone(0.5, rate), rate=rate))
    for channels in (2, 6, 8):
        yield wav(f"{channels} channels", sound(tone(0.5, 48_000, channels), rate=48_000))
    yield wav("1 Hz", sound(tone(1), rate=1), NO_WORSE)
    yield wav("2^31 Hz", patched(sound(), b"fmt ", 8, b"\xff\xff\xff\x7f"), NO_WORSE)
    yield wav("0 Hz", patched(sound(), b"fmt ", 8, bytes(4)), BAD)


def _lengths() -> Iterator[Entry]:
    """A clip too short for one token of the model, or longer than it listens to, is said to be."""
    yield wav("a tenth of a second", sound(tone(0.1)))
    yield wav("three milliseconds", sound(tone(0.003)), NO_WORSE)
    yield wav("one sample", sound(tone(1)[:1]), NO_WORSE)
    yield wav("two samples", sound(tone(1)[:2]), NO_WORSE)
    yield wav("no samples", sound(tone(1)[:0]), BAD)
    head = bytearray(sound(kind="FLAC")[:42])
    head[4] |= 0x80  # the last block before the samples
    yield flac("no samples in FLAC", bytes(head), BAD)
    silence = np.zeros(RATE, "f4")
    yield wav("silence", sound(silence))
    yield flac(
        "an hour of silence", sound(np.zeros(3600 * 8000, "f4"), "FLAC", 8000), BAD, "second"
    )
    opus = sound(np.zeros(600 * 8000, "f4"), "OGG", 8000, "OPUS")
    yield ogg("ten minutes of silence", opus, BAD, "s long")


def _values() -> Iterator[Entry]:
    loud = tone(1) * 1e6
    yield wav("far too loud", sound(loud, subtype="FLOAT"))
    for name, value in (("NaN", np.nan), ("infinity", np.inf), ("1e38", 1e38)):
        values = tone(1)
        values[100:200] = value
        yield wav(f"samples of {name}", sound(values, subtype="FLOAT"), NO_WORSE)
    values = np.full(RATE, np.nan, "f4")
    yield wav("nothing but NaN", sound(values, subtype="FLOAT"), NO_WORSE)
    yield wav("a constant", sound(np.full(RATE, 0.5, "f4")))


def _cut() -> Iterator[Entry]:
    for name, make, data in (
        ("WAV", wav, sound()),
        ("FLAC", flac, sound(kind="FLAC")),
        ("Vorbis", ogg, sound(kind="OGG")),
        ("MP3", mp3, sound(kind="MP3")),
        ("AAC", m4a, sound_film(kind="ipod")),
    ):
        for place in (4, 20, 0.3, 0.7):
            at = place if isinstance(place, int) else int(place * len(data))
            yield make(f"{name} cut at {place}", data[:at], BAD if at < 40 else NO_WORSE)


def _lies() -> Iterator[Entry]:
    data = sound()
    most, none = b"\xff\xff\xff\xff", bytes(4)
    for name, kind, offset, value, statuses in (
        ("data without end, as a stream has", b"data", 0, most, OK),
        ("no data", b"data", 0, none, NO_WORSE),
        ("a file without end", b"RIFF", 0, most, OK),
        ("no channels", b"fmt ", 6, b"\0\0", BAD),
        ("60,000 channels", b"fmt ", 6, b"\x60\xea", NO_WORSE),
        ("samples of no bits", b"fmt ", 18, b"\0\0", NO_WORSE),
        ("samples of 4,000 bits", b"fmt ", 18, b"\xa0\x0f", NO_WORSE),
        ("an unknown coding", b"fmt ", 4, b"\x77\x77", NO_WORSE),
        ("a format of 2^32", b"fmt ", 0, most, NO_WORSE),
    ):
        yield wav(f"WAV that claims {name}", patched(data, kind, offset, value), statuses)
    junk = data[:12] + b"JUNK" + struct.pack("<I", 1000) + bytes(1000) + data[12:]
    yield wav("a chunk of junk in front", junk)
    stream = bytearray(sound(kind="FLAC"))
    stream[21] |= 0x0F
    stream[22:26] = most  # samples in all, 36 bits
    yield flac("FLAC that claims 2^36 samples", bytes(stream), (200, 422))
    stream[21] &= 0xF0
    stream[22:26] = none
    yield flac("FLAC that claims nothing", bytes(stream), NO_WORSE)
    noise = np.random.default_rng(6)
    for name, make, whole in (
        ("MP3", mp3, sound(kind="MP3")),
        ("Vorbis", ogg, sound(kind="OGG")),
        ("FLAC", flac, sound(kind="FLAC")),
        ("Opus", ogg, sound(tone(1, 48_000), "OGG", 48_000, "OPUS")),
        ("AAC", m4a, sound_film(kind="ipod")),
    ):
        wrong = bytearray(whole)
        for at in noise.integers(100, len(whole), len(whole) // 10):
            wrong[at] = noise.integers(256)
        yield make(f"{name} with noise inside", bytes(wrong), NO_WORSE)


def _disguised() -> Iterator[Entry]:
    for name, data in {
        "a picture": picture("JPEG"),
        "a film without sound": film(),
        "HTML": b"<!doctype html><audio src=file:///etc/passwd>",
        "M3U": b"#EXTM3U\nfile:///etc/passwd\n",
        "PLS": b"[playlist]\nFile1=file:///etc/passwd\nNumberOfEntries=1\n",
        "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "MIDI": b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0",
        "a module": b"Extended Module: ".ljust(400),
        "zeros": bytes(50_000),
        "noise": np.random.default_rng(8).bytes(30_000),
        "one byte": b"R",
        "text": b"hello " * 200,
        "raw samples": tone().tobytes(),
        "an index of nothing": box(b"ftyp", b"M4A \0\0\2\0isom") + box(b"moov", b""),
    }.items():
        yield wav(f"{name} that says WAV", data, NO_WORSE if name == "noise" else BAD)
