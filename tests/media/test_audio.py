"""Sound: any file of the list becomes one channel at the rate that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epd.config.media import AudioLimits
from epd.errors import BadMedia, TooLarge
from epd.media.audio import AudioIO, load_sound, load_sound_track
from epd.media.decoded import Sound
from tests.media.clips import encoded_sound, sound_file, tone, video

TONE = tone(1.0, 44_100)
STEREO = np.stack([TONE, 0.5 * TONE], 1)
SURROUND = np.stack([TONE] * 6, 1)

FILES = {
    "wav": sound_file(STEREO, 44_100, "WAV"),
    "wav 24 bit": sound_file(STEREO, 44_100, "WAV", "PCM_24"),
    "wav float": sound_file(STEREO, 44_100, "WAV", "FLOAT"),
    "flac": sound_file(STEREO, 44_100, "FLAC"),
    "ogg": sound_file(STEREO, 44_100, "OGG"),
    "mp3": sound_file(STEREO, 44_100, "MP3"),
    "aiff": sound_file(STEREO, 44_100, "AIFF"),
    "mono": sound_file(TONE, 44_100, "WAV"),
    "5.1": sound_file(SURROUND, 44_100, "WAV"),
    "m4a": encoded_sound(STEREO, container="mp4", codec="aac"),
    "aac": encoded_sound(STEREO, container="adts", codec="aac"),
    "5.1 m4a": encoded_sound(SURROUND, container="mp4", codec="aac"),
    "webm": encoded_sound(STEREO, container="webm", codec="libopus", rate=48_000),
    "opus": encoded_sound(STEREO, container="ogg", codec="libopus", rate=48_000),
}


def loaded(data: bytes, rate: int = 16_000, **limits: Any) -> Sound:
    return load_sound(data, AudioLimits(**limits), rate)


def pitch(sound: Sound) -> float:
    spectrum = np.abs(np.fft.rfft(sound.samples * np.hanning(len(sound.samples))))
    return float(spectrum.argmax() * sound.rate / len(sound.samples))


@pytest.mark.parametrize("kind", FILES)
def test_a_tone_stays_the_same_tone(kind: str) -> None:
    sound = loaded(FILES[kind])
    assert (sound.rate, sound.samples.dtype, sound.samples.ndim) == (16_000, np.float32, 1)
    assert len(sound.samples) == pytest.approx(16_000, rel=0.06)
    assert pitch(sound) == pytest.approx(440, abs=2)
    # AAC keeps nothing of the tone in its channel for low frequencies.
    loudest = {"mono": 0.5, "5.1": 0.5, "5.1 m4a": 0.5 * 5 / 6}.get(kind, 0.375)
    assert np.abs(sound.samples[4000:12000]).max() == pytest.approx(loudest, rel=0.1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 48_000, 96_000, 192_000])
def test_every_rate_is_resampled(rate: int) -> None:
    sound = loaded(sound_file(tone(0.5, rate), rate, "WAV"))
    assert len(sound.samples) == pytest.approx(8_000, abs=1)
    assert pitch(sound) == pytest.approx(440, abs=2)


def test_channels_are_averaged() -> None:
    both = np.stack([np.full(1600, 0.5), np.full(1600, -0.25)], 1).astype(np.float32)
    sound = loaded(sound_file(both, 16_000, "WAV", "FLOAT"))
    assert np.array_equal(sound.samples, np.full(1600, 0.125, np.float32))


def test_samples_at_the_rate_itself_are_untouched() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 70_000).astype(np.float32)
    sound = loaded(sound_file(samples, 16_000, "WAV", "FLOAT"))
    assert np.array_equal(sound.samples, samples)


def test_blocks_leave_no_seams() -> None:
    """Resampled block by block as all at once."""
    import soxr

    samples = np.random.default_rng(0).uniform(-0.3, 0.3, 200_000).astype(np.float32)
    sound = loaded(sound_file(samples, 44_100, "WAV", "FLOAT"))
    expected = soxr.resample(samples, 44_100, 16_000)
    assert len(sound.samples) == len(expected)
    assert np.abs(sound.samples - expected).max() < 1e-4


@pytest.mark.parametrize("rate", [4_000, 384_000])
def test_rates_out_of_bounds_are_named(rate: int) -> None:
    with pytest.raises(BadMedia, match=f"{rate} samples a second; 8000 to 192000"):
        loaded(sound_file(TONE, rate, "WAV"))


def test_too_many_channels_are_refused() -> None:
    with pytest.raises(BadMedia, match="9 channels, more than 8"):
        loaded(sound_file(np.zeros((100, 9), np.float32), 16_000, "WAV"))


@pytest.mark.parametrize("kind", ["wav", "mp3", "m4a", "ogg"])
def test_the_length_is_judged_by_the_header(kind: str) -> None:
    with pytest.raises(BadMedia, match=r"1(\.\d+)? s long, more than the limit of 0.5 s"):
        loaded(FILES[kind], max_seconds=0.5)


def test_the_length_is_judged_again_while_samples_come() -> None:
    """ADTS has no length in a header."""
    with pytest.raises(BadMedia, match="s long, more than the limit of 0.5 s"):
        loaded(FILES["aac"], max_seconds=0.5)


def test_nothing_is_no_sound_and_a_sample_is_one() -> None:
    with pytest.raises(BadMedia, match="no samples of sound"):
        loaded(sound_file(TONE[:0], 16_000, "WAV"))
    assert len(loaded(sound_file(TONE[:1], 16_000, "WAV")).samples) == 1
    with pytest.raises(BadMedia, match="no samples of sound"):
        loaded(sound_file(TONE[:1], 192_000, "WAV"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    samples = TONE.copy()
    samples[100] = value
    with pytest.raises(BadMedia, match="samples that are not finite"):
        loaded(sound_file(samples, 16_000, "WAV", "FLOAT"))


def test_samples_are_within_one() -> None:
    sound = loaded(sound_file(10 * TONE, 16_000, "WAV", "FLOAT"))
    assert np.abs(sound.samples).max() == 1.0


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "0 bytes"),
        (b"text" * 100, "not a readable WAV"),
        (FILES["wav"][:30], "damaged or truncated file"),
        (FILES["m4a"][:200], "damaged or truncated file"),
        (video(3), "no samples of sound in the file"),
    ],
)
def test_what_is_no_sound_is_refused_with_the_reason(data: bytes, text: str) -> None:
    with pytest.raises(BadMedia) as caught:
        loaded(data)
    assert caught.value.message.startswith(text)


def test_a_file_over_its_bytes_is_too_large() -> None:
    with pytest.raises(TooLarge):
        loaded(FILES["wav"], max_bytes=1000)


def test_a_video_has_its_sound_track_or_none() -> None:
    track = load_sound_track(video(10, sound_s=1.0), AudioLimits(), 16_000)
    assert track is not None
    assert pitch(track) == pytest.approx(440, abs=2)
    assert load_sound_track(video(10), AudioLimits(), 16_000) is None


def test_the_audio_file_of_a_video_is_its_sound() -> None:
    assert pitch(loaded(video(10, sound_s=1.0))) == pytest.approx(440, abs=2)


def test_written_as_base64_it_is_read_back_without_loss() -> None:
    sound = AudioIO().load_bytes(FILES["flac"])
    assert sound.rate == 44_100
    again = AudioIO().load_base64(AudioIO().encode_base64(sound))
    assert np.array_equal(again.samples, sound.samples)
