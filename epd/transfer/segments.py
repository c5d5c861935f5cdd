"""Shared-memory segments as plain files in /dev/shm: made, found again, reclaimed after a crash.

A segment's owner holds a file lock on it for as long as it lives. So anybody can tell a dead
process's segment from a living one's, without process ids, across containers that share /dev/shm.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from epd.errors import ConfigError, ProtocolError

FOLDER: Final = Path("/dev/shm")
STAMP_BYTES: Final = 64
_NAME: Final = re.compile(r"epd-[0-9a-f]{32}")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def host_id() -> str:
    """Equal for processes that can open each other's segments: one boot, one /dev/shm, one user."""
    shm = FOLDER.stat()
    facts = f"{_BOOT_ID.read_text().strip()} {shm.st_dev} {shm.st_ino} {os.geteuid()}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def create(num_bytes: int) -> tuple[str, int]:
    """(name, file) of a new segment with its memory reserved. ConfigError if there is no room."""
    reclaim_dead()
    name = f"epd-{secrets.token_hex(16)}"
    path = FOLDER / name
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Reserved, not only promised: writing to a full /dev/shm would kill the process.
        os.posix_fallocate(file, 0, num_bytes)
    except OSError as error:
        os.close(file)
        path.unlink(missing_ok=True)
        raise ConfigError(
            f"no {num_bytes} bytes of shared memory in {FOLDER} ({error.strerror}); "
            "lower wire.shm_bytes, or set it to 0"
        ) from None
    return name, file


def remove(name: str, file: int) -> None:
    """The owner is done with it. Those who opened it may still read."""
    unlink(name)
    os.close(file)


def unlink(name: str) -> None:
    """Nobody else opens it any more."""
    (FOLDER / name).unlink(missing_ok=True)


def open_to_read(name: str) -> tuple[int, int]:
    """(file, size) of a peer's segment. ProtocolError unless it is one that a node like us made."""
    if not _NAME.fullmatch(name):
        raise ProtocolError("segment", "not a name that we issue")
    try:
        file = os.open(FOLDER / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ProtocolError("segment", f"{name}: {error.strerror}") from None
    found = os.fstat(file)
    if found.st_uid != os.geteuid():
        os.close(file)
        raise ProtocolError("segment", f"{name} belongs to another user")
    return file, found.st_size


def lease() -> tuple[str, int]:
    """(name, file) of a segment with nothing in it: others see by it that this process lives."""
    return create(STAMP_BYTES)


def held(name: str) -> bool:
    """Whether the process whose lease this is may be alive. False for a name that nobody has."""
    if not _NAME.fullmatch(name):
        return False
    try:
        file = os.open(FOLDER / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)


def stamp(segment: str, slot: int) -> bytes:
    """What stands before a slot's bytes for as long as it is lent."""
    return hashlib.blake2b(f"{segment} {slot}".encode(), digest_size=STAMP_BYTES).digest()


def reclaim_dead() -> int:
    """Remove our user's segments whose owners are dead; how many there were."""
    reclaimed = 0
    for entry in os.scandir(FOLDER):
        if _NAME.fullmatch(entry.name):
            reclaimed += _reclaim(Path(entry.path))
    return reclaimed


def _reclaim(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # gone by now, or another user's
        return False
    try:
        found = os.fstat(file)
        if found.st_uid != os.geteuid() or found.st_size == 0:
            return False  # empty: its owner is just making it
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)
