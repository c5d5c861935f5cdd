"""A child that begins as a copy of this process, with everything that this one has imported.

Importing torch and transformers takes a worker some five seconds of CPU time. Whoever starts many
workers, or one again, imports once and forks. That is sound as long as nobody here has started a
thread that the copy needs, or touched a GPU.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, NoReturn

STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Forked:
    """What `subprocess.Popen` is for a program, for a function: its result is the exit code.

    It leads a session of its own, reads nothing, and writes to `stdout`, or where it shares
    this process's output, there. Of the open descriptors it keeps `keep`.
    """

    def __init__(
        self, run: Callable[[], int], *, keep: tuple[int, ...], share_output: bool = False
    ) -> None:
        reader, writer = (None, None) if share_output else os.pipe()
        _flush()
        with _signals_wait() as before:
            self.pid = os.fork()
            if self.pid == 0:
                _become(run, writer, keep, before)
        self.returncode: int | None = None
        self.stdout: BinaryIO | None = None
        if reader is not None and writer is not None:
            os.close(writer)
            self.stdout = os.fdopen(reader, "rb", buffering=0)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        """The exit code, once it has ended."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def terminate(self) -> None:
        """Ask it to stop in order."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


@contextlib.contextmanager
def _signals_wait() -> Iterator[set[signal.Signals]]:
    """One that comes for the copy before it has handlers of its own must not be lost in ours."""
    before = {signal.Signals(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)}
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become(
    run: Callable[[], int], output: int | None, keep: tuple[int, ...], mask: set[signal.Signals]
) -> NoReturn:
    """Never returns into what its parent was doing."""
    code = 1
    try:
        gc.freeze()  # what is the parent's must not be finalized here
        os.setsid()
        _take_over(output)
        _close_all_but(keep)
        _forget_handlers(mask)
        code = run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  there is nobody above to hear of it
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            logging.shutdown()
            _flush()
        os._exit(code)


def _take_over(output: int | None) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if output is not None:
        os.dup2(output, 1)
        os.dup2(output, 2)


def _close_all_but(keep: tuple[int, ...]) -> None:
    """Pipes of the other children among them: an end kept open here would hide a death there."""
    first = 3
    for file in sorted(keep):
        os.closerange(first, file)
        first = file + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _forget_handlers(mask: set[signal.Signals]) -> None:
    for number in STOPS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    logging.getLogger().handlers.clear()


def _flush() -> None:
    """Or what is buffered is written twice."""
    sys.stdout.flush()
    sys.stderr.flush()
