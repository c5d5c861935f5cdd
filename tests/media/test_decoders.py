"""Decoder processes: they give what decoding here gives, and take the blame for hostile files."""

from __future__ import annotations

import gc
import io
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epd.config import MediaConfig
from epd.config.media import ImageLimits, VideoLimits
from epd.errors import BadMedia, BadRequest, ConfigError, EpdError, InternalError, Unavailable
from epd.media.audio import AudioIO
from epd.media.backends import MODULES
from epd.media.decoded import VideoInfo
from epd.media.decoders import Decoders, budget
from epd.media.decoders.desks import DESK_BYTES
from epd.media.image import ImageIO
from epd.media.series import TimeSeriesIO
from epd.media.video import VideoIO
from tests.media.clips import number_of, picture_file, sound_file, tone, video

PICTURE = picture_file(30, 20)
SOUND = sound_file(tone(0.5, 44_100), 44_100, "WAV")
CLIP = video(30, sound_s=3.0)
SILENT = video(30)

Open = Callable[..., Decoders]


@pytest.fixture
def opener() -> Iterator[Open]:
    """Opens decoders that the test's end closes; afterwards no descriptor is left."""
    gc.collect()  # what earlier tests have left
    before = num_descriptors()
    opened: list[Decoders] = []

    def open_(num: int = 1, config: MediaConfig | None = None) -> Decoders:
        opened.append(Decoders(num, config or MediaConfig()))
        return opened[-1]

    yield open_
    for decoders in opened:
        decoders.close()
    gc.collect()  # clips have their descriptors as long as they live, also in a caught error
    assert num_descriptors() == before


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def shared() -> Iterator[Decoders]:
    """Two processes for tests that break nothing."""
    decoders = Decoders(2, MediaConfig())
    yield decoders
    decoders.close()


def every_tenth(info: VideoInfo) -> Sequence[int]:
    return range(0, info.num_frames, 10)


# ---- what they give


def test_a_picture_is_the_same_as_decoded_here(shared: Decoders) -> None:
    found = shared.image(PICTURE).image
    assert found.mode == "RGB"
    assert found.tobytes() == ImageIO().load_bytes(PICTURE).image.tobytes()


def test_files_and_pictures_that_are_too_large_for_the_desk_come_whole(opener: Open) -> None:
    limits = ImageLimits(max_bytes=2 * DESK_BYTES, max_pixels=25_000_000)
    config = MediaConfig(image=limits)
    noise = np.random.default_rng(0).integers(0, 256, (5000, 5000, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "BMP")
    assert file.tell() > DESK_BYTES
    decoders = opener(1, config)
    found = decoders.image(file.getvalue()).image
    assert np.array_equal(np.asarray(found), noise)
    file = io.BytesIO()
    found.resize((5000, 4000)).save(file, "JPEG")
    found = decoders.image(file.getvalue()).image
    assert np.array_equal(np.asarray(found), np.asarray(Image.open(file)))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_pictures_on_the_desk_show_nothing_of_those_before(
    shared: Decoders, mode: str, orientation: int
) -> None:
    white = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(white, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    kind = "PNG" if mode == "RGBA" else "JPEG"
    Image.open(io.BytesIO(PICTURE)).convert(mode).save(file, kind, exif=exif)
    rows = zlib.compress(bytes(4 * (1 + 3 * 64)))  # of 64: Pillow takes the others as black
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    short = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
    no_scan = white.getvalue().replace(b"\xff\xda", b"\xff\xe1")
    shared.image(white.getvalue())
    with pytest.raises(BadMedia, match="damaged JPEG|not a readable"):
        shared.image(no_scan)
    for data in (file.getvalue(), short):
        for _ in range(2):
            shared.image(white.getvalue())
            found = shared.image(data).image
            assert found.tobytes() == ImageIO().load_bytes(data).image.tobytes()


def test_sound_and_series_are_the_same_as_decoded_here(shared: Decoders) -> None:
    sound = shared.audio(SOUND, 16_000)
    assert np.array_equal(sound.samples, AudioIO(rate=16_000).load_bytes(SOUND).samples)
    assert sound.rate == 16_000
    assert np.array_equal(shared.series(b"1,2\n3,4").values, [[1, 2], [3, 4]])
    series = shared.series(SOUND)
    assert np.array_equal(series.values, TimeSeriesIO().load_bytes(SOUND).values)
    assert series.rate == 44_100.0


def test_a_video_gives_the_frames_that_its_facts_made_somebody_choose(shared: Decoders) -> None:
    seen: list[VideoInfo] = []

    def choose(info: VideoInfo) -> Sequence[int]:
        seen.append(info)
        return every_tenth(info)

    clip = shared.video(SILENT, choose)
    here = VideoIO().load_bytes(SILENT)
    assert clip.indices == (0, 10, 20)
    assert np.array_equal(clip.frames, here.frames[::10])
    assert seen == [here.info] == [clip.info]
    assert clip.sound is None


def test_sound_comes_with_a_video_where_it_is_asked_for_and_there_is_any(shared: Decoders) -> None:
    clip = shared.video(CLIP, every_tenth, sound_rate=16_000)
    assert clip.sound is not None
    assert (clip.sound.rate, clip.info.has_sound) == (16_000, True)
    assert len(clip.sound.samples) == pytest.approx(48_000, rel=0.05)
    assert shared.video(CLIP, every_tenth).sound is None
    assert shared.video(SILENT, every_tenth, sound_rate=16_000).sound is None


def test_frames_come_as_one_array(shared: Decoders) -> None:
    frames = shared.frames([picture_file(8, 6, shade=i) for i in range(3)])
    assert frames.shape == (3, 6, 8, 3)
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 1, 2]


def test_what_comes_may_be_written_to(shared: Decoders) -> None:
    """As an array of one's own."""
    clip = shared.video(SILENT, every_tenth)
    clip.frames[:] = 7
    assert number_of(shared.video(SILENT, every_tenth).frames[1]) == 10


@pytest.mark.parametrize("data", [b"", b"text" * 100, CLIP[:500]])
def test_bad_bytes_get_the_reasons_of_decoding_here(shared: Decoders, data: bytes) -> None:
    pairs = (
        (shared.image, ImageIO()),
        (lambda d: shared.audio(d, 16_000), AudioIO()),
        (shared.series, TimeSeriesIO()),
        (lambda d: shared.video(d, every_tenth), VideoIO()),
    )
    for there, here in pairs:
        with pytest.raises(EpdError) as found:
            there(data)
        with pytest.raises(EpdError) as expected:
            here.load_bytes(data)
        assert type(found.value) is type(expected.value)
        assert found.value.message == expected.value.message


def test_an_error_of_the_choice_is_the_callers_and_the_process_stays(opener: Open) -> None:
    decoders = opener()
    pids = decoders.pids

    def choose(info: VideoInfo) -> Sequence[int]:
        raise BadRequest("no such frames")

    with pytest.raises(BadRequest, match="no such frames"):
        decoders.video(CLIP, choose)
    assert decoders.video(SILENT, every_tenth).indices == (0, 10, 20)
    assert decoders.pids == pids


def test_all_frames_together_are_limited_before_they_are_asked_for(opener: Open) -> None:
    limits = VideoLimits(max_decoded_pixels=2 * 64 * 48)
    decoders = opener(1, MediaConfig(video=limits))
    with pytest.raises(BadMedia, match="3 frames of 64x48 are 9216 pixels"):
        decoders.video(SILENT, every_tenth)


def test_many_threads_share_few_processes(shared: Decoders) -> None:
    def work(number: int) -> bool:
        if number % 3 == 0:
            return shared.image(picture_file(5 + number, 4)).image.width == 5 + number
        if number % 3 == 1:
            return shared.video(SILENT, lambda info: [number]).indices == (number,)
        with pytest.raises(BadMedia):
            shared.audio(b"x" * number, 16_000)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(29)))


# ---- what hostile files do to them


def killing(decoders: Decoders, number: int) -> Callable[[VideoInfo], Sequence[int]]:
    """A choice during which the process gets a signal."""

    def choose(info: VideoInfo) -> Sequence[int]:
        (pid,) = decoders.pids
        os.kill(pid, number)
        return [0]

    return choose


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_is_the_files_fault_and_the_next_item_gets_a_new_process(
    opener: Open, number: int
) -> None:
    decoders = opener()
    pids = decoders.pids
    with pytest.raises(BadMedia, match="the decoder crashed on it"):
        decoders.video(SILENT, killing(decoders, number))
    assert decoders.pids != pids
    assert decoders.image(PICTURE).image.size == (30, 20)


def test_a_hang_ends_with_the_time_of_the_item(opener: Open) -> None:
    decoders = opener(1, MediaConfig(decode_timeout_s=2.0))
    decoders.image(PICTURE)  # the process is up
    with pytest.raises(BadMedia, match="took longer than 2 s to decode"):
        decoders.video(SILENT, killing(decoders, signal.SIGSTOP))
    assert decoders.image(PICTURE).image.size == (30, 20)


def test_a_file_that_wants_too_much_memory_is_refused(
    opener: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "limit_bytes", lambda config: 40 << 20)
    decoders = opener()
    with pytest.raises(BadMedia):
        decoders.image(picture_file(6000, 4000))
    assert decoders.image(PICTURE).image.size == (30, 20)


def test_a_process_that_died_idle_is_no_items_fault(opener: Open) -> None:
    decoders = opener()
    decoders.image(PICTURE)
    (pid,) = decoders.pids
    gone = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([gone], [], [], 30)[0]
    os.close(gone)
    assert decoders.image(PICTURE).image.size == (30, 20)


def test_a_process_that_is_ended_as_it_starts_is_no_items_fault(opener: Open) -> None:
    """The item is there already and waits for it; another one is started."""
    decoders = opener()
    (first,) = decoders.pids
    with ThreadPoolExecutor(1) as pool:
        os.kill(first, signal.SIGSTOP)  # before it can say that it is ready
        picture = pool.submit(decoders.image, PICTURE)
        while decoders._idle:  # until the item has it
            os.sched_yield()
        os.kill(first, signal.SIGKILL)
        assert picture.result().image.size == (30, 20)
    assert decoders.pids != [first]


def test_a_process_that_never_starts_is_said(opener: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    decoders = opener()
    (pid,) = decoders.pids
    os.kill(pid, signal.SIGKILL)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InternalError, match="its process does not start"):
        decoders.image(PICTURE)
    monkeypatch.undo()
    assert decoders.image(PICTURE).image.size == (30, 20)


def test_a_crash_leaves_the_others_alone(opener: Open) -> None:
    """One item waits inside its decoder while the other's crashes."""
    decoders = opener(2)
    inside, crashed = threading.Event(), threading.Event()
    victim: list[int] = []

    def patient(info: VideoInfo) -> Sequence[int]:
        inside.set()
        assert crashed.wait(30)
        return [3]

    def doomed(info: VideoInfo) -> Sequence[int]:
        for pid in decoders.pids:
            if pid not in victim:
                os.kill(pid, signal.SIGSEGV)
        return [0]

    with ThreadPoolExecutor(1) as pool:
        first = decoders.pids
        waiting = pool.submit(lambda: decoders.video(SILENT, patient).indices)
        assert inside.wait(30)
        (idle,) = [process.pid for process in decoders._idle]
        victim += [pid for pid in first if pid != idle]
        with pytest.raises(BadMedia):
            decoders.video(SILENT, doomed)
        crashed.set()
        assert waiting.result() == (3,)


def test_closing_ends_processes_and_those_who_wait(opener: Open) -> None:
    decoders = opener()
    decoders.image(PICTURE)
    gone = [os.pidfd_open(pid) for pid in decoders.pids]
    inside, closed = threading.Event(), threading.Event()

    def patient(info: VideoInfo) -> Sequence[int]:
        inside.set()
        assert closed.wait(30)
        return [0]

    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(decoders.video, SILENT, patient)
        assert inside.wait(30)
        waiting = pool.submit(decoders.image, PICTURE)
        decoders.close()
        closed.set()
        for future in (working, waiting):
            with pytest.raises(Unavailable):
                future.result()
    for pidfd in gone:
        assert select.select([pidfd], [], [], 30)[0]
        os.close(pidfd)
    with pytest.raises(Unavailable):
        decoders.image(PICTURE)


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """However it ends."""
    program = (
        "import os, sys\n"
        "from epd.config import MediaConfig\n"
        "from epd.media.decoders import Decoders\n"
        "decoders = Decoders(2, MediaConfig())\n"
        "decoders.series(b'1'), decoders.series(b'1')\n"
        "print(*decoders.pids, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as parent:
        assert parent.stdout is not None
        gone = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(gone) == 2
    for pidfd in gone:
        assert select.select([pidfd], [], [], 30)[0]
        os.close(pidfd)


# ---- what they are


def test_a_decoder_knows_neither_models_nor_our_environment(
    opener: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "of ours")
    decoders = opener()
    decoders.image(PICTURE)
    (pid,) = decoders.pids
    assert b"A_SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()
    mapped = Path(f"/proc/{pid}/maps").read_text()
    assert "libav" in mapped and "numpy" in mapped
    assert "torch" not in mapped
    program = "import epd.media.decoders.child, sys; print(*sorted(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout.split()
    assert "av" in modules
    assert not {"torch", "transformers", "zmq"} & set(modules)


def test_a_backend_that_is_not_installed_is_said_at_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MODULES, "decord", "no_such_library")
    with pytest.raises(ConfigError, match="media.video.backend=decord"):
        Decoders(1, MediaConfig(video=VideoLimits(backend="decord")))


def test_a_backend_that_cannot_be_imported_is_said_at_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its package is there, and fails inside the process."""
    monkeypatch.setitem(MODULES, "decord", "av")
    with pytest.raises(ConfigError, match="media.video.backend=decord"):
        Decoders(1, MediaConfig(video=VideoLimits(backend="decord")))


def test_another_backend_gives_the_same_clip(opener: Open) -> None:
    pytest.importorskip("cv2")
    decoders = opener(1, MediaConfig(video=VideoLimits(backend="opencv")))
    clip = decoders.video(SILENT, every_tenth)
    assert [number_of(frame) for frame in clip.frames] == [0, 10, 20]
