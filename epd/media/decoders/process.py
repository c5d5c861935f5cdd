"""The parent's side of one decoder process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import epd
from epd.config.media import MediaConfig
from epd.config.section import MIB
from epd.errors import BadMedia, BadRequest, ConfigError, EpdError, InternalError, TooLarge
from epd.media.decoders import budget, desks, link, sealed
from epd.media.decoders.desks import Desks
from epd.media.decoders.link import Link, Malformed

START_S = 120.0
_LIMITS = {"image", "video", "audio", "time_series", "file"}
_ERRORS: dict[str, type[EpdError]] = {
    error.__name__: error for error in (BadRequest, BadMedia, TooLarge)
}


class Lost(Exception):
    """The process died, hangs or talks nonsense: it must be replaced. In words for the client."""


class StartFailed(Exception):
    """The process ended before it could take an item: no item is at fault."""


class Process:
    """One decoder process. Used by one thread at a time, except kill().

    A picture that it leaves on one of `desks` is to be taken before the next item starts.
    """

    def __init__(self, config: MediaConfig) -> None:
        self._ready = False
        self._timeout = config.decode_timeout_s
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=_environment(),
            )
        self._link = Link(ours)
        shared = desks.shared_memory()
        self.desks = Desks(shared)
        self._deadline = time.monotonic() + START_S
        self._link.allow(START_S)
        limits = config.model_dump(mode="json", include=_LIMITS)
        memory, timeout = budget.limit_bytes(config), self._timeout + 1.0
        with suppress(OSError):  # wait_ready() finds out that it is gone
            self._link.send({"media": limits, "memory": memory, "timeout": timeout}, [shared])
        os.close(shared)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, or has not been gone for long."""
        return self._link.alive

    def wait_ready(self) -> None:
        """Until it can take items. ConfigError when it says that it never will."""
        if self._ready:
            return
        try:
            self._allow_rest()
            said, fds = self._hear()
        except Lost as error:
            raise StartFailed from error
        link.close(fds)
        if said.get("error") == "config":
            raise ConfigError(str(said.get("message")))
        self._ready = True

    def start(self, kind: str, pieces: Sequence[bytes], **facts: Any) -> None:
        """Give it an item; its time runs from here."""
        self._deadline = time.monotonic() + self._timeout
        self._link.allow(self._timeout)
        sizes = [len(piece) for piece in pieces]
        fits = sum(sizes) <= desks.DESK_BYTES
        desk = self.desks.put(pieces if fits else ())
        message = {"do": kind, "sizes": sizes, "desk": desk, **facts}
        if fits:
            self._say(message)
            return
        fd = sealed.put(pieces)
        try:
            self._say(message, [fd])
        finally:
            os.close(fd)

    def tell(self, **facts: Any) -> None:
        """More about the item in hand."""
        self._allow_rest()
        self._say(facts)

    def answer(self) -> tuple[dict[str, Any], list[int]]:
        """What it says, and descriptors that are the caller's. The item's error is raised."""
        said, fds = self._hear()
        if "error" not in said:
            return said, fds
        link.close(fds)
        text = str(said.get("message"))
        if (error := _ERRORS.get(str(said["error"]))) is not None:
            raise error(text)
        raise InternalError(f"decoder: {text}")

    def kill(self) -> None:
        """End it now; any thread. Who waits for its answer learns that it is lost."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it and free what it held."""
        self.kill()
        self._link.close()
        self.desks.close()

    def _allow_rest(self) -> None:
        self._link.allow(max(0.001, self._deadline - time.monotonic()))

    def _say(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        try:
            self._link.send(message, fds)
        except (OSError, Malformed) as error:
            raise Lost(self._ending()) from error

    def _hear(self) -> tuple[dict[str, Any], list[int]]:
        try:
            return self._link.receive()
        except TimeoutError as error:
            raise Lost(f"took longer than {self._timeout:g} s to decode") from error
        except (OSError, EOFError, Malformed) as error:
            raise Lost(self._ending()) from error

    def _ending(self) -> str:
        """How it died, as a reason for the client."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "the decoder gave no valid answer"
        if code == -signal.SIGALRM:
            return f"took longer than {self._timeout:g} s to decode"
        return "the decoder crashed on it"


def _environment() -> dict[str, str]:
    """What this process imports from, one thread, and memory that is kept for the next item.

    Nothing else of ours is for a decoder. Pages that are given back after each item come again
    one fault at a time, which takes half as long as decoding a picture.
    """
    paths = dict.fromkeys([str(Path(epd.__file__).parent.parent), *filter(None, sys.path)])
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": str(64 * MIB),
        "MALLOC_TRIM_THRESHOLD_": str(128 * MIB),
        "PILLOW_BLOCKS_MAX": "8",
    }
