"""Pictures: from a file's bytes to RGB pixels, or to a reason in a few words.

The header is judged before any pixel is decoded. Formats are an allow-list: each further one is a
further decoder that strangers can reach.
"""

from __future__ import annotations

import base64
import io

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from epd.config.media import ImageLimits
from epd.errors import BadMedia, TooLarge
from epd.media.decoded import Picture
from epd.media.headers import refuse_costly, webp_size
from epd.media.io import MediaIO
from epd.media.jpeg import Room, plain_jpeg
from epd.media.versions import decoding
from epd.types import ItemForm, Modality

# Naming the plugins here registers them before any thread asks for one.
_PLUGINS = (
    PngImagePlugin.PngImageFile,
    JpegImagePlugin.JpegImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)

# Ours is the only limit on pixels, and it is an error, never a warning.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_16_TO_8_BIT = [value // 257 for value in range(1 << 16)]


class ImageIO(MediaIO[Picture]):
    """Still pictures, and the first frame of moving ones."""

    modality = Modality.IMAGE

    @property
    def decoding(self) -> str:
        return decoding(self.modality, ItemForm.FILE, self.config)

    def load_bytes(self, data: bytes) -> Picture:
        return Picture(image=load_image(data, self.config.image))

    def encode_base64(self, media: Picture) -> str:
        """As a PNG, without loss."""
        file = io.BytesIO()
        media.image.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode("ascii")


def load_image(data: bytes, config: ImageLimits, room: Room | None = None) -> Image.Image:
    """Decode the first frame to upright RGB; what is transparent lies on the background.

    Where `room` gives a picture of its size, the pixels are there.
    """
    if not data:
        raise BadMedia("0 bytes")
    if len(data) > config.max_bytes:
        raise TooLarge(f"file larger than {config.max_bytes} bytes")
    if room is not None and (plain := plain_jpeg(data, config.max_pixels, room)) is not None:
        return plain
    refuse_costly(data)
    if canvas := webp_size(data):
        _refuse_size(canvas, config)
    image = _open(data)
    _refuse_size(image.size, config)
    try:
        place = room(image.size) if room is not None and _fills(image) else None
        if place is not None:
            image.im = place.im
            image.decodermaxblock = len(data)  # libjpeg does not have to stop and go back
        image.load()
        picture = _to_rgb(_upright(image), config.background)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise an open set of types
        raise BadMedia(f"{_fault(error)} {image.format}") from error
    if room is None or (place is not None and picture.im is place.im):
        return picture
    return _put(picture, room(picture.size))


def _refuse_size(size: tuple[int, int], config: ImageLimits) -> None:
    width, height = size
    if width * height > config.max_pixels:
        raise BadMedia(f"{width}x{height} pixels, more than the limit of {config.max_pixels}")
    if width < 1 or height < 1:
        raise BadMedia("a picture without pixels")


def _open(data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        names = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise BadMedia(f"not a readable {names} file") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise an open set of types
        raise BadMedia("damaged or truncated picture") from error


def _fault(error: Exception) -> str:
    cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
    return "truncated" if cut else "damaged"


def _fills(image: ImageFile.ImageFile) -> bool:
    """Whether its decoder writes every RGB pixel or fails, whatever was there before.

    That of PNG ends without a word where the pixels do; and a JPEG without a scan has no tile,
    which Pillow only minds while there is no memory for it.
    """
    jpeg = type(image) is JpegImagePlugin.JpegImageFile and image.mode == "RGB"
    return jpeg and [tile.extents for tile in image.tile] == [(0, 0, *image.size)]


def _put(picture: Image.Image, place: Image.Image | None) -> Image.Image:
    if place is None:
        return picture
    place.paste(picture)
    return place


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001  unreadable metadata does not make the pixels unreadable
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image.convert("I"), image.info.get("transparency"), background)
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        return _on(background, layer, layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit(
    grey: Image.Image, transparent: object, background: tuple[int, int, int]
) -> Image.Image:
    picture = grey.point(_16_TO_8_BIT, "L").convert("RGB")
    if not isinstance(transparent, int):
        return picture
    opaque = [255] * (1 << 16)
    opaque[transparent & 0xFFFF] = 0
    return _on(background, picture, grey.point(opaque, "L"))


def _on(background: tuple[int, int, int], layer: Image.Image, opacity: Image.Image) -> Image.Image:
    below = Image.new("RGB", layer.size, background)
    below.paste(layer, mask=opacity)
    return below
