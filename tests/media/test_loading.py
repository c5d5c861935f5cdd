"""Media opened by hand, from wherever they are."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from epd.config import MediaConfig
from epd.config.media import ImageLimits
from epd.errors import BadMedia, BadRequest, TooLarge
from epd.media import encode_image_base64, load_from_url, load_image
from epd.media.decoded import Picture
from epd.media.image import ImageIO
from tests.media.site import Site, body

PIXEL = Image.new("RGB", (2, 1), (1, 2, 3))


@pytest.fixture
def encoded() -> str:
    """A picture as base64."""
    return encode_image_base64(PIXEL)


def shown(picture: Picture) -> object:
    """What was loaded, for comparison."""
    return picture.image.mode, picture.image.size, picture.image.tobytes()


def test_a_picture_is_the_same_from_everywhere(encoded: str, site: Site, tmp_path: Path) -> None:
    """Bytes, path, text of a path, and each kind of URL; and written again it stays the same."""
    data = base64.b64decode(encoded)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    site.pages["/a.png"] = body(data)
    config = MediaConfig(allow_private_addresses=True, allowed_local_path=tmp_path)
    percent = "".join(f"%{byte:02x}" for byte in data)
    for source in (
        data,
        path,
        str(path),
        path.as_uri(),
        f"{site.url}/a.png",
        f"data:image/png;base64,{encoded}",
        f"DATA:;Base64,{encoded.replace('+', '%2B').replace('=', '%3D')}",
        f"data:,{percent}",
    ):
        picture = load_image(source, config)
        assert shown(picture) == ("RGB", (2, 1), bytes([1, 2, 3] * 2))
    assert encode_image_base64(picture) == encoded


def test_the_policy_holds_for_urls_and_not_for_paths(tmp_path: Path, encoded: str) -> None:
    """Whoever hands over a path may read it; a URL may come from anybody."""
    path = tmp_path / "a.png"
    path.write_bytes(base64.b64decode(encoded))
    assert load_image(path).image.size == (2, 1)
    with pytest.raises(BadMedia, match="local files are not allowed"):
        load_image(path.as_uri())
    with pytest.raises(BadMedia, match="address not allowed"):
        load_image("http://127.0.0.1:9/")
    with pytest.raises(BadMedia, match="only http and https"):
        load_from_url(str(path), ImageIO())
    with pytest.raises(BadMedia, match="cannot be read"):
        load_image(tmp_path / "missing.png")


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64",
        "data:image/png;base64,%zz",
        "data:image/png;base64,\u00e9",
        "data:image/png;base64,aGVsbG8",
        "data:image/png;base64,aGVs bG8=",
        "data:image/png;base64,aGVs-_8=",
        "data:image/png;base64,",
        "data:,hello",
    ],
)
def test_a_wrong_data_url_is_a_bad_request(url: str) -> None:
    """Or a file that is no picture."""
    with pytest.raises(BadRequest):
        load_from_url(url, ImageIO())


def test_every_source_is_limited_in_size(tmp_path: Path, encoded: str) -> None:
    """Base64 before it is decoded, files before they are read whole."""
    path = tmp_path / "a.png"
    path.write_bytes(base64.b64decode(encoded))
    size = path.stat().st_size
    for limit, fits in ((size, True), (size - 1, False)):
        config = MediaConfig(image=ImageLimits(max_bytes=limit))
        for source in (path, path.read_bytes(), f"data:;base64,{encoded}"):
            if fits:
                load_image(source, config)
            else:
                with pytest.raises(TooLarge, match=f"larger than {limit} bytes"):
                    load_image(source, config)
    with pytest.raises(TooLarge):
        ImageIO(config).load_base64("!" * 4 * size)


def test_importing_the_room_loads_no_decoder() -> None:
    """The gateway imports it, and decodes nothing."""
    heavy = "('av', 'soundfile', 'soxr', 'cv2', 'torch', 'PIL.PngImagePlugin')"
    code = (
        f"import sys, epd.media, epd.media.decoded; print([n for n in {heavy} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
