"""One child process of the supervisor: how it is started, what it has said, how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from epd.workers.forked import Forked

LONGEST_LINE = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to run. `--ready-fd N --parent-fd N` are appended to `argv`.

    A program with `env`, or, where there is `run`, that function in a copy of this process. `load`
    is called first, here, for what all copies share.
    """

    name: str
    role: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[[Sequence[str]], int] | None = None
    load: Callable[[], None] | None = None


class Child:
    """One incarnation of a ChildSpec. Pipes are read without blocking, when the selector says so.

    The child leads a session of its own, so that Ctrl-C in the terminal reaches the supervisor
    alone. `parent_fd` reads end-of-file once the supervisor is gone.
    """

    def __init__(self, spec: ChildSpec, *, parent_fd: int) -> None:
        self.spec = spec
        self.ready: dict[str, Any] | None = None
        self.error = ""
        self.started = time.monotonic()
        self._last_line = ""
        self._partial = {"ready": b"", "output": b""}
        ready, ready_writer = os.pipe()
        try:
            self.process = _process(spec, ready_writer, parent_fd)
        except OSError:
            os.close(ready)
            raise
        finally:
            os.close(ready_writer)  # ours would hide the child's death from the reader
        assert self.process.stdout is not None
        self.pipes = {"ready": ready, "output": self.process.stdout.fileno()}
        for fd in self.pipes.values():
            os.set_blocking(fd, False)

    @property
    def alive(self) -> bool:
        """Whether the process runs; reaps it when it does not."""
        return self.process.poll() is None

    def read(self, pipe: str) -> bool:
        """Take what `pipe` ("ready", "output") holds now; False at its end."""
        while True:
            try:
                data = os.read(self.pipes[pipe], LONGEST_LINE)
            except BlockingIOError:
                return True
            *lines, rest = (self._partial[pipe] + data).split(b"\n")
            if not data or len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            self._partial[pipe] = rest
            for line in filter(None, lines):
                self._heard(pipe, line.decode(errors="replace"))
            if not data:
                return False

    def _heard(self, pipe: str, line: str) -> None:
        if pipe == "output":
            self._last_line = line.strip() or self._last_line
            # A line in JSON says itself which process it is from.
            shown = line if line.startswith("{") else f"{self.spec.name} | {line}"
            print(shown, file=sys.stderr, flush=True)
            return
        try:
            said = json.loads(line)
        except ValueError:
            said = {"error": f"said {line!r} where its ready line was due"}
        if isinstance(said, dict) and said.get("ready") is True:
            self.ready = said
        else:
            self.error = str(said.get("error", said) if isinstance(said, dict) else said)

    def terminate(self) -> None:
        """Ask it to stop in order."""
        self.process.terminate()

    def kill(self) -> None:
        """End it now and reap it."""
        self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        """Why it ended, as well as it is known: its own error, else the last line of its output.

        In a traceback that is the error; all of its lines have been passed on already.
        """
        return self.error or self._last_line or "it said nothing"

    def ending(self) -> str:
        """How it ended, or that it did not."""
        code = self.process.returncode
        if code is None:
            return "still running"
        if code >= 0:
            return f"exit code {code}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"

    def close(self) -> None:
        """Free the pipes; the process has been reaped."""
        os.close(self.pipes["ready"])
        assert self.process.stdout is not None
        self.process.stdout.close()


def _process(spec: ChildSpec, ready: int, parent: int) -> subprocess.Popen[bytes] | Forked:
    argv = [*spec.argv, "--ready-fd", str(ready), "--parent-fd", str(parent)]
    if spec.load is not None:
        spec.load()
    if spec.run is not None:
        return Forked(partial(spec.run, argv), keep=(ready, parent))
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(ready, parent),
        start_new_session=True,
        env=dict(spec.env),
    )
