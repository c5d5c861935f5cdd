"""A cluster of this machine, started and ended by a Python program: `epd serve` as an object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from typing import IO

from epd.errors import ConfigError, Unavailable

STOP_S = 60.0
LAST_LINES = 15
REFUSED = 2  # epd's exit code for a configuration that cannot work
SAYS = "epd serve: "


class Server:
    """One `epd serve` in a process of its own. It starts at once; `url` waits until it is ready.

    Use it as a context manager, or call `stop`. It also stops when this object is collected, and
    when this process ends, however it does. Thread-safe.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._log: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._ready, ready_writer = os.pipe()
        parent, self._alive = os.pipe()
        command = [sys.executable, "-m", "epd", "serve", *argv]
        command += ["--ready-fd", str(ready_writer), "--parent-fd", str(parent)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                pass_fds=(ready_writer, parent),
                start_new_session=True,  # Ctrl-C is for whoever waits for an answer
            )
        finally:
            os.close(ready_writer)
            os.close(parent)
        self._said: dict[str, str] | None = None
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(
            self, _end, self._process, (self._ready, self._alive), self._log
        )

    @property
    def url(self) -> str:
        """In front of /v1. Waits until the cluster is ready; raises when it cannot become that."""
        return self._facts()["url"]

    @property
    def model(self) -> str:
        """The name that requests call the model by. Waits like `url`."""
        return self._facts()["model"]

    @property
    def pid(self) -> int:
        """Of the supervisor; its workers are its children."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._finalizer.alive and self._process.poll() is None

    def log(self, last: int = LAST_LINES) -> str:
        """The last lines that the cluster has logged, while it was not stopped."""
        if not self._finalizer.alive:
            return ""
        end = os.fstat(self._log.fileno()).st_size
        begin = max(0, end - last * 1024)
        tail = os.pread(self._log.fileno(), end - begin, begin).decode(errors="replace")
        return "\n".join(tail.splitlines()[-last:])

    def wait(self) -> Server:
        """Until it is ready. ConfigError for what cannot work, Unavailable for a failed start."""
        self._facts()
        return self

    def stop(self) -> int:
        """In order, whatever still runs; the exit code. Again: the same."""
        self._finalizer()
        code = self._process.returncode
        assert code is not None
        return code

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _facts(self) -> dict[str, str]:
        with self._lock:
            if self._said is None:
                if not self._finalizer.alive:
                    raise Unavailable("the cluster was stopped")
                self._said = self._heard()
            return self._said

    def _heard(self) -> dict[str, str]:
        line = b""
        while not line.endswith(b"\n"):
            data = os.read(self._ready, 4096)
            if not data:
                raise self._why()
            line += data
        said: dict[str, str] = json.loads(line)
        return said

    def _why(self) -> ConfigError | Unavailable:
        """It closed its pipe without a word: it has ended, or is about to."""
        code = self._process.wait(STOP_S)
        log = self.log()
        if code == REFUSED and SAYS in log:
            return ConfigError(log.rpartition(SAYS)[2])
        return Unavailable(f"the cluster did not start (exit code {code}):\n{log}")


def _end(process: subprocess.Popen[bytes], pipes: tuple[int, int], log: IO[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        for pipe in pipes:
            os.close(pipe)
        log.close()
