"""A process of ours that does what may take for ever, or all memory, so that only it is lost.

It is told something when it starts, and answers questions, one after the other; see answering.py.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import epd
from epd.errors import InternalError
from epd.grammar.frames import read_frame, write_frame

_START_S = 120.0
_ENDING_S = 5.0
_WALL = 4.0  # where others have the processor, its time passes slower than that of a clock


class Lost(Exception):
    """It ended without an answer: it took too long (`late`), or too much memory."""

    def __init__(self, *, late: bool) -> None:
        super().__init__("late" if late else "gone")
        self.late = late


class BoundedProcess:
    """Runs `module`. For one thread at a time, but close(). It starts with the first question.

    `told` is asked for once per start. `timeout_s` is processor time for one answer.
    """

    def __init__(
        self, module: str, told: Callable[[], dict[str, Any]], *, timeout_s: float
    ) -> None:
        self._module = module
        self._told = told
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer. Lost; the next question starts another process."""
        process = self._started()
        try:
            write_frame(_pipe(process.stdin), question)
            return _answer(process, _WALL * self._timeout_s)
        except TimeoutError:
            self.close()
            raise Lost(late=True) from None
        except (OSError, EOFError, ValueError):
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING_S)
            self.close()
            raise Lost(late=process.returncode == -signal.SIGXCPU) from None

    def close(self) -> None:
        """Any thread; a question under way is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=_environment(),
        )
        try:
            write_frame(_pipe(process.stdin), {**self._told(), "timeout_s": self._timeout_s})
            _answer(process, _START_S)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise InternalError(f"gateway: the process {self._module} did not start") from error
        return process


def _answer(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    pipe = _pipe(process.stdout)
    if not select.select([pipe], [], [], seconds)[0]:
        raise TimeoutError
    return read_frame(pipe)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _environment() -> dict[str, str]:
    """What this process imports from; nothing else of ours is for it."""
    paths = dict.fromkeys([str(Path(epd.__file__).parent.parent), *filter(None, sys.path)])
    return {"PYTHONPATH": os.pathsep.join(paths)}
