"""Desks: pictures stay what they are while later ones are decoded, and nothing of them stays."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epd.config import MediaConfig
from epd.errors import BadMedia
from epd.media.decoders import Decoders, answers
from epd.media.decoders.answers import Expected
from epd.media.decoders.desks import (
    ALL_BYTES,
    DESK_BYTES,
    MOST_PIXELS,
    NUM_DESKS,
    Desks,
    shared_memory,
)
from epd.media.decoders.link import Malformed
from tests.media.clips import picture_file

PIXEL = Expected("uint8", 3, 4)


@dataclass(frozen=True, slots=True)
class Both:
    """Desks and what the process sees of them."""

    desks: Desks
    theirs: mmap.mmap

    def picture(self, red: int) -> Image.Image:
        """One pixel, decoded by nobody."""
        start = DESK_BYTES * self.desks.put([b"a file"])
        assert self.theirs[start : start + 6] == b"a file"
        self.theirs[start : start + 4] = bytes([red, 0, 0, 255])
        return answers.picture(({"desk": [1, 1]}, []), self.desks, PIXEL)


@pytest.fixture
def both() -> Iterator[Both]:
    """At the end everything is free."""
    gc.collect()  # what earlier tests have left
    before = num_descriptors()
    fd = shared_memory()
    desks, theirs = Desks(fd), mmap.mmap(fd, ALL_BYTES)
    os.close(fd)
    yield Both(desks, theirs)
    theirs.close()
    desks.close()
    del desks
    assert num_descriptors() == before


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    """One process."""
    decoders = Decoders(1, MediaConfig())
    yield decoders
    decoders.close()


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def shade(image: Image.Image) -> int:
    """Of a picture of one."""
    (only,) = np.unique(np.asarray(image)[..., 0])
    return int(only)


# ---- desks alone


def test_a_picture_lies_where_the_process_left_it(both: Both) -> None:
    image = both.picture(7)
    assert (image.mode, image.size, image.tobytes()) == ("RGB", (1, 1), b"\7\0\0")


def test_the_desk_that_was_freed_last_comes_first(both: Both) -> None:
    first, second = both.picture(1), both.picture(2)
    del first
    freed = both.desks.put([])
    both.picture(3)  # nobody keeps it
    assert both.desks.put([]) == freed
    assert shade(second) == 2


def test_an_item_without_a_picture_leaves_its_desk_to_the_next(both: Both) -> None:
    assert len({both.desks.put([b"x"]) for _ in range(2 * NUM_DESKS)}) == 1


def test_more_pictures_than_desks_are_right(both: Both) -> None:
    images = [both.picture(red) for red in range(3 * NUM_DESKS)]
    assert [shade(image) for image in images] == list(range(3 * NUM_DESKS))
    del images[0]
    images.append(both.picture(99))
    assert [shade(image) for image in images] == [*range(1, 3 * NUM_DESKS), 99]


def test_what_shares_a_pictures_pixels_keeps_its_desk(both: Both) -> None:
    core = both.picture(5).im
    for red in range(NUM_DESKS + 1):
        both.picture(red)
    assert core.getpixel((0, 0)) == (5, 0, 0)


def test_an_array_of_a_picture_is_a_copy(both: Both) -> None:
    """As processors take it: the picture may change afterwards, and the array does not."""
    image = both.picture(5)
    array = np.asarray(image)
    del image
    both.picture(6)
    assert array[0, 0, 0] == 5


def test_a_picture_may_be_written_to(both: Both) -> None:
    image = both.picture(5)
    image.putpixel((0, 0), (1, 2, 3))
    assert image.tobytes() == b"\1\2\3"


def test_pictures_outlive_their_desks(both: Both) -> None:
    images = [both.picture(1), both.picture(2)]
    both.desks.close()
    assert [shade(image) for image in images] == [1, 2]


def test_leases_end_in_any_thread(both: Both) -> None:
    def drop(number: int) -> None:
        images.pop()

    for _ in range(20):
        images = [both.picture(red) for red in range(NUM_DESKS)]
        with ThreadPoolExecutor(NUM_DESKS) as pool:
            list(pool.map(drop, images.copy()))
        gc.collect()
    assert sorted([*both.desks._free, both.desks.put([])]) == list(range(NUM_DESKS))


@pytest.mark.parametrize(
    "lie",
    [
        [1, 2, 3],
        [0, 1],
        [-1, -1],
        [MOST_PIXELS + 1, 1],
        [1 << 20, 1 << 20],
        [1 << 62, 1],
        [1.0, 1],
        "x",
        None,
    ],
)
def test_sizes_that_no_picture_on_a_desk_has_are_refused(both: Both, lie: object) -> None:
    both.desks.put([])
    with pytest.raises(Malformed):
        answers.picture(({"desk": lie}, []), both.desks, PIXEL)


def test_desks_cannot_be_taken_away() -> None:
    fd = shared_memory()
    for size in (0, 2 * ALL_BYTES):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    os.close(fd)


# ---- of a process


def test_pictures_stay_right_while_later_ones_are_decoded(decoders: Decoders) -> None:
    """Also those that are too many for the desks, and while other items come in between."""
    count = 2 * NUM_DESKS + 1
    pictures = []
    for red in range(count):
        pictures.append(decoders.image(picture_file(300, 200, red)))
        decoders.series(b"1,2")
        with pytest.raises(BadMedia):
            decoders.image(b"no picture")
    assert [shade(picture.image) for picture in pictures] == list(range(count))


def test_threads_that_hold_pictures_do_not_disturb_each_other(decoders: Decoders) -> None:
    barrier = threading.Barrier(4, timeout=60)

    def work(number: int) -> list[int]:
        found = []
        for step in range(12):
            red = 60 * number + step
            picture = decoders.image(picture_file(64, 48, red))
            barrier.wait()  # everybody has one, more than there are desks
            found.append(shade(picture.image) - red)
        return found

    with ThreadPoolExecutor(4) as pool:
        assert [set(found) for found in pool.map(work, range(4))] == [{0}] * 4


@pytest.mark.parametrize("end", ["killed", "closed"])
def test_a_picture_outlives_its_process(decoders: Decoders, end: str) -> None:
    """Its memory is not the next process's either."""
    picture = decoders.image(picture_file(300, 200, 9))
    if end == "killed":
        (pid,) = decoders.pids
        gone = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PIDFD, gone, os.WEXITED | os.WNOWAIT)
        os.close(gone)
        assert shade(decoders.image(picture_file(300, 200, 8)).image) == 8
        assert decoders.pids != [pid]
    else:
        decoders.close()
    assert shade(picture.image) == 9


def test_nothing_of_pictures_is_left() -> None:
    """Neither descriptors nor shared memory, as soon as the last one is gone."""
    gc.collect()  # what earlier tests have left
    before = num_descriptors(), num_mappings()
    decoders = Decoders(1, MediaConfig())
    pictures = [decoders.image(picture_file(300, 200, red)) for red in range(NUM_DESKS)]
    decoders.close()
    del decoders
    assert num_mappings() == before[1] + 1
    pictures.clear()
    assert (num_descriptors(), num_mappings()) == before


def num_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("/memfd:media")
