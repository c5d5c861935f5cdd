"""From the content of a part to a source: decoded where it is inline, and judged by what it says.

Nothing is fetched here, and no bytes are interpreted.
"""

from __future__ import annotations

from collections.abc import Mapping

from epd.config import MediaConfig
from epd.errors import BadMedia, BadRequest
from epd.gateway.parts import EmbedsContent, InputAudio, MediaContent, MediaUrl
from epd.gateway.urls import Place, bad, check_url, decode, open_inline
from epd.media import Policy
from epd.media.data_url import is_data_url
from epd.models.family import FamilySpec
from epd.prompt import Source
from epd.types import ItemForm, Modality


class Sources:
    """Opens parts as the operator and the family allow."""

    def __init__(self, spec: FamilySpec, media: MediaConfig) -> None:
        self._spec = spec
        self._media = media
        self._policy = Policy(media)

    def open(self, part: MediaContent, place: Place) -> Source | None:
        """None where the part has no content. BadRequest and TooLarge name the item."""
        content = getattr(part, part.content)
        most = self._media.limits(part.modality).max_bytes
        if isinstance(part, EmbedsContent):
            self._check_embeds(part.modality, place)
            return None if not content else self._embeds(part.modality, content, place, most)
        if isinstance(content, InputAudio):
            if content.data is None:
                return None
            data = decode(content.data, place, most_bytes=most)
            if not data:
                raise bad(place, "it holds no data")
            return Source.file(data)
        if not isinstance(content, MediaUrl) or content.url is None:
            return None
        return self._at(content.url, part.modality, place, most)

    def _at(self, url: str, modality: Modality, place: Place, most: int) -> Source:
        if is_data_url(url):
            frames = modality is Modality.VIDEO
            return open_inline(url, place, frames=frames, most_bytes=most)
        check_url(url, place, local=self._media.allowed_local_path is not None)
        try:
            self._policy.check(url)
        except BadMedia as error:
            raise BadMedia(f"{place.where}: {error.message}", param=place.where) from error
        return Source(url=url)

    def _check_embeds(self, modality: Modality, place: Place) -> None:
        if not self._media.enable_embeds:
            raise bad(place, "this server takes no ready-made embeddings")
        if modality not in self._spec.embeds:
            raise bad(place, f"this model takes no ready-made {modality.value} embeddings")

    def _embeds(
        self, modality: Modality, content: str | Mapping[str, str], place: Place, most: int
    ) -> Source:
        fields = self._spec.embeds[modality]
        given = {fields[0].name: content} if isinstance(content, str) else content
        wanted = ", ".join(f"{one.name} {one.shape}" for one in fields)
        names = {one.name for one in fields}
        if unknown := sorted(set(given) - names):
            raise bad(place, f"unknown field {unknown[0][:100]!r}; this model takes {wanted}")
        if missing := [one.name for one in fields if one.required and one.name not in given]:
            raise bad(place, f"{missing[0]} is missing; this model takes {wanted}")
        pieces: list[tuple[str, bytes]] = []
        for one in fields:
            if one.name in given:
                data = decode(given[one.name], place, most_bytes=most, name=one.name)
                if not data:
                    raise bad(place, f"{one.name} holds no data")
                most -= len(data)
                pieces.append((one.name, data))
        return Source.of(pieces, ItemForm.EMBEDS)


def missing_content(part: MediaContent, place: Place) -> BadRequest:
    """Neither content nor a name for it."""
    param = f"{place.where}.{part.content}"
    return BadRequest(f"{param}: content is missing, and there is no uuid", param=param)
