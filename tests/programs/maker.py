"""`python -m tests.programs.maker FD`: makes programs as copies of itself, until FD is closed.

A request names a module, its arguments, its environment and the numbers of the files that come with
it; the first file is where the exit code is told. The answer is the process id.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import setproctitle

from epd.workers.forked import Forked

LARGEST = 1 << 20
MOST_FILES = 16
ABOVE = 512
"""Files are moved up here first, so that none is overwritten before it has its own number."""

SHARED = (
    "epd.workers.process",
    "epd.workers.front",
    "epd.workers.ranks",
    "epd.cli.role",
    "epd.cli.serve",
)


def main(control: socket.socket) -> None:
    """Serve the one who holds the other end."""
    setproctitle.getproctitle()  # it finds a title's place by where the first environment lies
    _import_what_is_shared()
    ends, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    living: list[tuple[Forked, int]] = []
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(ends, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == ends:
                    os.read(ends, 4096)
                    living = [one for one in living if not _told(*one)]
                elif (made := _made(control)) is None:
                    return
                else:
                    living.append(made)


def _import_what_is_shared() -> None:
    from epd.models.torchvision_shim import prepare_torchvision

    prepare_torchvision()
    for module in (*SHARED, "torchvision", "transformers.modeling_utils"):
        import_module(module)


def _made(control: socket.socket) -> tuple[Forked, int] | None:
    """A new process and where its end is told; None where nobody asks any more."""
    body, (*files,), _, _ = socket.recv_fds(control, LARGEST, MOST_FILES)
    if not body:
        return None
    ended, *given = files
    program = partial(_become, json.loads(body), given)
    forked = Forked(program, keep=tuple(given), share_output=True)
    for file in given:
        os.close(file)
    control.send(str(forked.pid).encode())
    return forked, ended


def _told(forked: Forked, ended: int) -> bool:
    code = forked.poll()
    if code is None:
        return False
    with contextlib.suppress(BrokenPipeError):  # who asked does not want to know
        os.write(ended, str(code).encode())
    os.close(ended)
    return True


def _become(told: dict[str, Any], given: Sequence[int]) -> int:
    """The program, in a process of its own; it has a new interpreter's view of the environment."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for high, number in zip([_moved(file) for file in given], told["files"], strict=True):
        os.dup2(high, number)
        os.close(high)
    os.environ.clear()
    os.environ.update(told["env"])
    sys.path += [
        path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path
    ]
    tempfile.tempdir = None
    sys.argv = ["epd", *told["argv"]]
    runpy.run_module(told["module"], run_name="__main__", alter_sys=True)
    return 0


def _moved(file: int) -> int:
    high = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, ABOVE)
    os.close(file)
    return high


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
