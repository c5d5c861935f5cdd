"""The content parts of messages: text, files, and items by address, inline, or as embeddings.

A part that names an item has its content under the name of its own type. With a `uuid` and no
content it stands for what was last sent under that name.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from epd.gateway.fields import Fields
from epd.types import Modality

MAX_UUID_CHARACTERS = 256
MAX_EMBEDS_FIELDS = 16
MAX_NAME_CHARACTERS = 1024

# Tags name the members of unions; pydantic puts them in error paths and errors.py takes them out.
STRING, OBJECT = "<string>", "<object>"


class TextContent(Fields):
    """A text part."""

    type: Literal["text"]
    text: str


class MediaUrl(Fields):
    """Where an item is: http(s), file:, or inline as a data: URL."""

    url: str | None = None


class ImageUrl(MediaUrl):
    """Always read in full detail."""

    neutral: ClassVar = {"detail": ("auto", "high")}


class InputAudio(Fields):
    """A file's bytes in base64. What they are is read from them, whatever `format` says."""

    data: str | None = None
    format: str | None = Field(None, max_length=32, pattern=r"^[A-Za-z0-9_.+-]+$")


def _embeds_tag(value: Any) -> str | None:
    return STRING if isinstance(value, str) else OBJECT if isinstance(value, dict) else None


Embeds = Annotated[
    Annotated[str, Tag(STRING)]
    | Annotated[dict[str, str], Field(max_length=MAX_EMBEDS_FIELDS), Tag(OBJECT)],
    Discriminator(
        _embeds_tag,
        custom_error_type="embeds_type",
        custom_error_message="must be a base64 string or an object of base64 strings",
    ),
]
"""Tensors in base64: the first field of the family's alone, or all of them by name."""


class File(Fields):
    """A file inline, as base64 or a data: URL, or where it is. What it is called says what it is,
    where its data do not."""

    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = Field(None, max_length=MAX_NAME_CHARACTERS)


class FileContent(Fields):
    """A file: a prompt has its text in its place, or the item that it is."""

    neutral: ClassVar = {"detail": ("auto", "high")}

    type: Literal["file"]
    file: File


class MediaContent(Fields):
    """Any part that names an item."""

    modality: ClassVar[Modality]
    content: ClassVar[str]
    """The type's name, under which the content stands."""

    uuid: str | None = Field(None, min_length=1, max_length=MAX_UUID_CHARACTERS)


class ImageContent(MediaContent):
    """A picture."""

    modality: ClassVar = Modality.IMAGE
    content: ClassVar = "image_url"

    type: Literal["image_url"]
    image_url: ImageUrl | None = None


class VideoContent(MediaContent):
    """A video, or the frames of one in order."""

    modality: ClassVar = Modality.VIDEO
    content: ClassVar = "video_url"

    type: Literal["video_url"]
    video_url: MediaUrl | None = None
    use_audio_in_video: bool | None = None


class AudioContent(MediaContent):
    """A clip by address."""

    modality: ClassVar = Modality.AUDIO
    content: ClassVar = "audio_url"

    type: Literal["audio_url"]
    audio_url: MediaUrl | None = None


class InputAudioContent(MediaContent):
    """A clip inline, as OpenAI has it."""

    modality: ClassVar = Modality.AUDIO
    content: ClassVar = "input_audio"

    type: Literal["input_audio"]
    input_audio: InputAudio | None = None


class TimeSeriesContent(MediaContent):
    """A time series."""

    modality: ClassVar = Modality.TIME_SERIES
    content: ClassVar = "time_series_url"

    type: Literal["time_series_url"]
    time_series_url: MediaUrl | None = None


class EmbedsContent(MediaContent):
    """Rows that the client computed, with what the family needs to place them."""


class ImageEmbedsContent(EmbedsContent):
    """Of a picture."""

    modality: ClassVar = Modality.IMAGE
    content: ClassVar = "image_embeds"

    type: Literal["image_embeds"]
    image_embeds: Embeds | None = None


class VideoEmbedsContent(EmbedsContent):
    """Of a video."""

    modality: ClassVar = Modality.VIDEO
    content: ClassVar = "video_embeds"

    type: Literal["video_embeds"]
    video_embeds: Embeds | None = None


class AudioEmbedsContent(EmbedsContent):
    """Of a clip."""

    modality: ClassVar = Modality.AUDIO
    content: ClassVar = "audio_embeds"

    type: Literal["audio_embeds"]
    audio_embeds: Embeds | None = None


TYPES = (
    "text",
    "image_url",
    "video_url",
    "audio_url",
    "input_audio",
    "time_series_url",
    "image_embeds",
    "video_embeds",
    "audio_embeds",
    "file",
)


def _part_tag(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{kind}>" if kind in TYPES else None


Content = Annotated[
    Annotated[TextContent, Tag("<text>")]
    | Annotated[ImageContent, Tag("<image_url>")]
    | Annotated[VideoContent, Tag("<video_url>")]
    | Annotated[AudioContent, Tag("<audio_url>")]
    | Annotated[InputAudioContent, Tag("<input_audio>")]
    | Annotated[TimeSeriesContent, Tag("<time_series_url>")]
    | Annotated[ImageEmbedsContent, Tag("<image_embeds>")]
    | Annotated[VideoEmbedsContent, Tag("<video_embeds>")]
    | Annotated[AudioEmbedsContent, Tag("<audio_embeds>")]
    | Annotated[FileContent, Tag("<file>")],
    Discriminator(
        _part_tag,
        custom_error_type="part_type",
        custom_error_message=f"type must be one of {', '.join(TYPES)}",
    ),
]

PART_TAGS = frozenset({STRING, OBJECT, *(f"<{kind}>" for kind in TYPES)})
