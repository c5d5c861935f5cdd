"""`file:` URLs: the folder's files, and nothing else of this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import quote

import pytest

from epd.config import MediaConfig
from epd.config.media import AudioLimits, ImageLimits
from epd.errors import BadMedia, Cancelled, TooLarge
from epd.media import Fetcher
from epd.media.local import read_local
from epd.types import Modality


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of media, beside which there is a secret."""
    (tmp_path / "secret.txt").write_bytes(b"secret")
    folder = tmp_path / "media"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"picture")
    (folder / "inner" / "b.png").write_bytes(b"inner")
    return folder


def read(url: str, folder: Path) -> bytes:
    """Under the folder."""
    return read_local(url, folder, 1000)


def refusal(url: str, folder: Path) -> str:
    """The reason, which names no path."""
    with pytest.raises(BadMedia) as caught:
        read(url, folder)
    assert "/" not in caught.value.message and "secret" not in caught.value.message
    return caught.value.message


OUTSIDE = "file outside of the allowed folder"
MISSING = "no such file, or it cannot be read"


def test_files_below_the_folder_are_read(folder: Path) -> None:
    """At any depth, with either form of the URL, and with escapes."""
    odd = folder / "a b#\u00fc%.png"
    odd.write_bytes(b"odd")
    assert read(f"file://{folder}/a.png", folder) == b"picture"
    assert read(f"file://localhost{folder}/inner/b.png", folder) == b"inner"
    assert read(f"FILE:{folder}/a.png", folder) == b"picture"
    assert read(f"file://{quote(str(odd))}", folder) == b"odd"
    assert read(f"file://{folder}//inner/./b.png", folder) == b"inner"


def test_nothing_is_read_without_a_folder(folder: Path) -> None:
    """The default."""
    with pytest.raises(BadMedia, match="local files are not allowed"):
        read_local(f"file://{folder}/a.png", None, 1000)
    with pytest.raises(BadMedia, match="local files are not allowed"):
        Fetcher(MediaConfig()).fetch(f"file://{folder}/a.png", Modality.IMAGE)


def test_what_lies_outside_is_refused_alike_whether_it_exists_or_not(folder: Path) -> None:
    """So that nobody can ask what this machine has."""
    for path in (folder.parent / "secret.txt", "/etc/passwd", "/no/such/file", "/", folder.parent):
        assert refusal(f"file://{path}", folder) == OUTSIDE
    (folder.parent / "media-other").mkdir()
    (folder.parent / "media-other" / "x").write_bytes(b"secret")
    assert refusal(f"file://{folder.parent}/media-other/x", folder) == OUTSIDE


@pytest.mark.parametrize(
    "path",
    ["/../secret.txt", "/inner/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/.."],
)
def test_no_path_goes_up(folder: Path, path: str) -> None:
    """Written plainly or escaped."""
    assert "'..'" in refusal(f"file://{folder}{path}", folder)


def test_links_may_lead_within_the_folder_only(folder: Path) -> None:
    """Of files and of folders, directly and through others."""
    (folder / "good").symlink_to(folder / "inner")
    (folder / "file").symlink_to("inner/b.png")
    (folder / "out").symlink_to(folder.parent)
    (folder / "secret").symlink_to("../secret.txt")
    (folder / "chain").symlink_to(folder / "out" / "secret.txt")
    (folder / "round").symlink_to(folder / "round")
    (folder / "nowhere").symlink_to(folder / "missing")
    assert read(f"file://{folder}/good/b.png", folder) == b"inner"
    assert read(f"file://{folder}/file", folder) == b"inner"
    for name in ("out/secret.txt", "secret", "chain"):
        assert refusal(f"file://{folder}/{name}", folder) == OUTSIDE
    for name in ("round", "nowhere"):
        assert refusal(f"file://{folder}/{name}", folder) == MISSING


def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    """Files are named through it or by where it leads."""
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert read(f"file://{link}/a.png", link) == b"picture"
    assert read(f"file://{folder}/a.png", link) == b"picture"
    assert read(f"file://{link}/a.png", folder) == b"picture"


def test_a_link_made_after_the_path_was_resolved_is_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder on the way is swapped for a link between the check and the opening."""
    (folder.parent / "b.png").write_bytes(b"secret")
    real = os.path.realpath
    url = f"file://{folder}/inner/b.png"

    def swapping(path: os.PathLike[str] | str) -> str:
        found = real(path)
        if found.endswith("b.png"):
            (folder / "inner").rename(folder / "moved")
            (folder / "inner").symlink_to(folder.parent)
        return found

    assert read(url, folder) == b"inner"
    monkeypatch.setattr(os.path, "realpath", swapping)
    assert refusal(url, folder) == MISSING
    monkeypatch.undo()
    assert Path(f"{folder}/inner/b.png").read_bytes() == b"secret"  # what a plain open would give


def test_only_regular_files_are_read(folder: Path) -> None:
    """And opening a pipe without a writer does not wait for one."""
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket may not be long
        listener.bind("socket")
        os.chdir(here)
        assert refusal(f"file://{folder}/socket", folder) == MISSING
    for name in ("pipe", "inner", ""):
        assert refusal(f"file://{folder}/{name}", folder) == "not a regular file"
    assert refusal(f"file://{folder}/a.png/x", folder) == MISSING
    assert refusal("file:///dev/zero", Path("/dev")) == "not a regular file"


def test_the_size_is_limited_before_and_while_reading(folder: Path) -> None:
    """Some files say that they are empty."""
    (folder / "large").write_bytes(bytes(1001))
    (folder / "fits").write_bytes(bytes(1000))
    assert len(read(f"file://{folder}/fits", folder)) == 1000
    with pytest.raises(TooLarge, match="larger than 1000 bytes"):
        read(f"file://{folder}/large", folder)
    with pytest.raises(TooLarge, match="larger than 10 bytes"):
        read_local("file:///proc/meminfo", Path("/proc"), 10)


@pytest.mark.parametrize(
    "url",
    [
        "file:",
        "file://",
        "file:a.png",
        "file://a.png",
        "file://evil.example/etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "file:////evil.example/share",
        "file:///a%00.png",
        "file:///a%zz.png",
        "file:///a\n.png",
        "file:///a\\b.png",
        "file:///a.png?x",
        "file:///a.png#x",
        "file://[::1/a.png",
        f"file:///{'a' * 9000}",
        "file:///%ff%fe",
        "file:///\ud800",
    ],
)
def test_any_other_url_of_a_file_is_refused(folder: Path, url: str) -> None:
    """Never another error."""
    with pytest.raises(BadMedia):
        read(url, folder)


def test_the_limit_is_that_of_the_modality(folder: Path) -> None:
    """And a reading that nobody wants is called off."""
    config = MediaConfig(
        allowed_local_path=folder,
        image=ImageLimits(max_bytes=3),
        audio=AudioLimits(max_bytes=7),
    )
    fetcher = Fetcher(config)
    url = f"file://{folder}/a.png"
    assert fetcher.fetch(url, Modality.AUDIO) == b"picture"
    with pytest.raises(TooLarge, match="larger than 3 bytes"):
        fetcher.fetch(url, Modality.IMAGE)
    with pytest.raises(Cancelled):
        fetcher.fetch(url, Modality.AUDIO, wanted=lambda: False)


def test_a_redirect_never_leads_to_a_file(folder: Path) -> None:
    """Although files may be asked for directly."""
    from epd.media.url import parse_url, redirected

    with pytest.raises(BadMedia, match="only http and https"):
        redirected(parse_url("http://example.org/"), f"file://{folder}/a.png")
