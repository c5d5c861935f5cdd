"""One program, as `subprocess.Popen` would show it; the process that makes it is started first."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType

LONGEST_S = 240.0


class Program:
    """`python -m MODULE ARGUMENTS`, in a session of its own, reading nothing.

    `stdout` and `stderr` are descriptors, or files of this process; ours where they are None.
    `pass_fds` keep their numbers. The caller closes what it gave.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        module: str = "epd",
        stdout: int | None = None,
        stderr: int | None = None,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        told = {"module": module, "argv": [*argv], "env": dict(env or os.environ)}
        files = {1: sys.__stdout__.fileno() if stdout is None else stdout}  # type: ignore[union-attr]
        files[2] = sys.__stderr__.fileno() if stderr is None else stderr  # type: ignore[union-attr]
        files |= {fd: fd for fd in pass_fds}
        self._ended, writer = os.pipe()
        try:
            maker = _maker()
            body = json.dumps({**told, "files": [*files]}).encode()
            socket.send_fds(maker, [body], [writer, *files.values()])
            self.pid = int(maker.recv(64))
        finally:
            os.close(writer)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._hear(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; subprocess.TimeoutExpired."""
        code = self._hear(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def _hear(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            said = os.read(self._ended, 64)
            os.close(self._ended)
            assert said, "what makes programs for tests is gone"
            self.returncode = int(said)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to stop in order."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.wait()


def said(argv: Sequence[str], *, module: str, env: Mapping[str, str] | None = None) -> Done:
    """Run to its end: what it wrote, and its exit code."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        program = Program(argv, module=module, stdout=out.fileno(), stderr=err.fileno(), env=env)
        code = program.wait(LONGEST_S)
        out.seek(0)
        err.seek(0)
        return Done(code, out.read().decode(), err.read().decode())


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended."""

    returncode: int
    stdout: str
    stderr: str


@cache
def _maker() -> socket.socket:
    """Its ear. It ends when this process does: then nobody holds the other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [sys.executable, "-m", "tests.programs.maker", str(theirs.fileno())]
    # As `epd serve` sets it for workers of one thread, before torch reads it.
    env = {"GOMP_SPINCOUNT": "5000", **os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], env=env, start_new_session=True)
    theirs.close()
    atexit.register(_end, ours, process)
    return ours


def _end(ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
    ours.close()
    process.wait()
