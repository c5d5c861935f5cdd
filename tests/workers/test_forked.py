"""Children that are copies of this process: how they end, what they write, what they keep open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from epd.workers.forked import Forked


@contextmanager
def forked(run: Callable[[], int], *keep: int) -> Iterator[Forked]:
    child = Forked(run, keep=keep)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def said(child: Forked) -> bytes:
    """All that it writes until it ends."""
    stdout = child.stdout
    assert stdout is not None
    return b"".join(iter(lambda: stdout.read(1 << 16), b""))


def forever() -> int:
    while True:
        signal.pause()


def test_what_the_function_returns_is_the_exit_code() -> None:
    with forked(lambda: 3) as child:
        assert child.wait() == 3
        assert child.poll() == child.returncode == 3


def test_it_leads_a_session_of_its_own() -> None:
    """So that Ctrl-C in the terminal does not reach it."""
    with forked(lambda: int(os.getsid(0) == os.getpid())) as child:
        assert child.wait() == 1


def test_an_exception_is_written_and_is_an_exit_code_too() -> None:
    def fail() -> int:
        sys.stderr = os.fdopen(2, "w")  # as it is where no test runner has replaced it
        raise RuntimeError("no good")

    with forked(fail) as child:
        assert b"RuntimeError: no good" in said(child)
        assert child.wait() == 1
    with forked(lambda: sys.exit(4)) as child:
        assert child.wait() == 4


def test_it_reads_nothing_and_writes_where_its_parent_reads() -> None:
    def talk() -> int:
        os.write(1, b"out ")
        os.write(2, b"err ")
        return len(os.read(0, 1))

    with forked(talk) as child:
        assert said(child) == b"out err "
        assert child.wait() == 0


def test_signals_do_what_they_do_to_a_new_program() -> None:
    """The parent's handler is the parent's."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with forked(forever) as child:
            assert child.poll() is None
            child.terminate()
            assert child.wait() == -signal.SIGTERM
            child.terminate()  # nobody is there any more
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == []


@pytest.mark.parametrize("kept", [True, False])
def test_only_what_it_is_to_keep_stays_open(kept: bool) -> None:
    reader, writer = os.pipe()

    def count() -> int:
        return sum(_open(file) for file in (reader, writer))

    with forked(count, *((writer,) if kept else ())) as child:
        assert child.wait() == int(kept)
    os.close(reader)
    os.close(writer)


def _open(file: int) -> bool:
    try:
        os.fstat(file)
    except OSError:
        return False
    return True


def test_text_that_was_not_written_yet_is_written_once() -> None:
    """As a program of its own, for here the test runner has sys.stdout."""
    source = (
        "import os, sys\n"
        "from epd.workers.forked import Forked\n"
        "print('once', end='')\n"
        "child = Forked(lambda: 0, keep=())\n"
        "sys.exit(child.wait() or len(child.stdout.read()))\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=True)
    assert done.stdout == b"once"
