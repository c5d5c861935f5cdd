"""What a container's probes look at: two files, so that a probe costs no Python and no socket.

`alive` is touched while the loop turns, so its age says for how long it has not; without it the
loop has not begun, or has ended. `ready` is there while this process is a member that takes new
work. Neither ever touches a device.
"""

from __future__ import annotations

from pathlib import Path

from epd.errors import ConfigError

ALIVE = "alive"
READY = "ready"


class Probes:
    """The files of one process in `folder`; nothing at all without one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._shows_ready = False
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in (ALIVE, READY):  # of a predecessor that was killed
                (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"probe_dir: {folder} cannot be written: {error.strerror}", param="probe_dir"
            ) from None

    def turned(self, *, ready: bool) -> None:
        """The loop has come round, and takes work or does not."""
        if self._folder is None:
            return
        (self._folder / ALIVE).touch()
        if ready != self._shows_ready:
            self._show(ready)

    def close(self) -> None:
        """The process ends."""
        if self._folder is None:
            return
        self._show(False)
        (self._folder / ALIVE).unlink(missing_ok=True)

    def _show(self, ready: bool) -> None:
        assert self._folder is not None
        self._shows_ready = ready
        if ready:
            (self._folder / READY).touch()
        else:
            (self._folder / READY).unlink(missing_ok=True)
