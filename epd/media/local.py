"""`file:` URLs: regular files below the operator's folder, wherever links lead.

Links are resolved first; then the resolved path is opened folder by folder without following any,
so that one which is swapped in between gains nothing. No text names a path of ours.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from epd.errors import BadMedia, Cancelled, TooLarge
from epd.media.url import MAX_URL

_READ = 1 << 20
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe waits for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def is_file_url(url: str) -> bool:
    """By its scheme alone."""
    return url[:5].lower() == "file:"


def local_path(url: str) -> Path:
    """The absolute path that a file: URL names; BadMedia for what parsers may disagree about."""
    if len(url) > MAX_URL:
        raise BadMedia(f"URL longer than {MAX_URL} characters")
    if any(c < " " or c in "\\\x7f" for c in url) or _BAD_ESCAPE.search(url):
        raise BadMedia("malformed file: URL")
    try:
        split = urlsplit(url)
    except ValueError:
        raise BadMedia("malformed file: URL") from None
    if split.netloc.lower() not in ("", "localhost") or "?" in url or "#" in url:
        raise BadMedia("a file: URL takes a path only, no host, query or fragment")
    try:
        path = Path(os.fsdecode(unquote_to_bytes(split.path)))
    except UnicodeError:
        raise BadMedia("malformed file: URL") from None
    if not path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise BadMedia("a file: URL takes an absolute path without '..'")
    return path


def read_local(
    url: str, root: Path | None, max_bytes: int, *, wanted: Callable[[], bool] | None = None
) -> bytes:
    """The file's content. Cancelled as soon as `wanted` says no."""
    if root is None:
        raise BadMedia("local files are not allowed")
    inside = _resolved(local_path(url), root)
    with _opened(root, inside) as descriptor:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadMedia("not a regular file")
        if found.st_size > max_bytes:
            raise TooLarge(f"file larger than {max_bytes} bytes")
        return _content(descriptor, max_bytes, wanted)


def _resolved(path: Path, root: Path) -> tuple[str, ...]:
    """The names that lead from the folder to the file, none of them a link."""
    try:
        real = Path(os.path.realpath(path))
        return real.relative_to(os.path.realpath(root)).parts
    except (OSError, ValueError):
        raise BadMedia("file outside of the allowed folder") from None


@contextmanager
def _opened(root: Path, names: tuple[str, ...]) -> Iterator[int]:
    descriptor = -1
    try:
        descriptor = os.open(os.path.realpath(root), _FOLDER)
        for index, name in enumerate(names):
            flags = _FILE if index == len(names) - 1 else _FOLDER
            inner = os.open(name, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        raise BadMedia("no such file, or it cannot be read") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _content(descriptor: int, max_bytes: int, wanted: Callable[[], bool] | None) -> bytes:
    """Counts what is read: a file may grow, and some say that they are empty."""
    content = bytearray()
    try:
        while chunk := os.read(descriptor, _READ):
            content += chunk
            if len(content) > max_bytes:
                raise TooLarge(f"file larger than {max_bytes} bytes")
            if wanted is not None and not wanted():
                raise Cancelled("nobody wants the file any more")
    except OSError:
        raise BadMedia("no such file, or it cannot be read") from None
    return bytes(content)
