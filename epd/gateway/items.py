"""The items of one request: counted, opened or found again by name, and judged before any work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from epd.config import GatewayConfig, MediaConfig
from epd.errors import BadRequest, TooLarge
from epd.gateway.accounts import tenant_salt
from epd.gateway.known import KnownSources, Name
from epd.gateway.options import Opened, Options
from epd.gateway.parts import MediaContent, VideoContent
from epd.gateway.schemas import ChatRequest
from epd.gateway.sources import Sources, missing_content
from epd.gateway.urls import Place, bad
from epd.models.family import FamilySpec
from epd.prompt import Message, Source, place_of

Placed = tuple[Place, MediaContent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A chat whose items are known; `named` is to be remembered once the request is taken."""

    messages: list[Message]
    named: list[tuple[Name, Source]]


class ItemReader:
    """Reads the parts of chats as the family, the operator and the tenant's memory allow."""

    def __init__(self, spec: FamilySpec, gateway: GatewayConfig, media: MediaConfig) -> None:
        self._spec = spec
        self._gateway = gateway
        self._media = media
        self._sources = Sources(spec, media)
        self._options = Options(spec, media)
        self.known = KnownSources(
            most_bytes=gateway.known_bytes, most_entries=gateway.known_sources
        )

    def read(self, body: ChatRequest, tenant: str) -> Read:
        """Names mean something inside `tenant` only.

        BadRequest or TooLarge names the part or the setting at fault.
        """
        places = list(_places(body))
        self._check_taken(places)
        self._check_counts(places)
        named: dict[Name, Source] = {}
        sources = self._open(places, tenant_salt(tenant, body.cache_salt or ""), named)
        opened = [
            Opened(
                place=place,
                modality=part.modality,
                source=source,
                sound=part.use_audio_in_video if isinstance(part, VideoContent) else None,
            )
            for (place, part), source in zip(places, sources, strict=True)
        ]
        items = iter(self._options.resolve(opened, body.media_io_kwargs, body.mm_processor_kwargs))
        messages = [message.to_prompt(items, i) for i, message in enumerate(body.messages)]
        return Read(messages=messages, named=list(named.items()))

    def takes(self) -> dict[str, int]:
        """Most items of each kind in one request, of those that may be sent at all."""
        most = {kind.value: self._media.limits(kind).per_request for kind in self._spec.modalities}
        return {kind: min(self._gateway.max_items, num) for kind, num in most.items() if num}

    def _check_taken(self, places: Sequence[Placed]) -> None:
        for place, part in places:
            if part.modality not in self._spec.modalities:
                takes = ", ".join(self._spec.modalities)
                raise bad(place, f"this model takes no {part.modality.value}; it takes {takes}")

    def _check_counts(self, places: Sequence[Placed]) -> None:
        self._check_count("", len(places), self._gateway.max_items)
        for modality, num in Counter(part.modality for _, part in places).items():
            most = self._media.limits(modality).per_request
            self._check_count(f" of the kind {modality.value}", num, most)

    @staticmethod
    def _check_count(kind: str, num: int, most: int) -> None:
        if num > most:
            text = f"the request has {num} items{kind}; this server takes {most} at most"
            raise BadRequest(text, param="messages")

    def _open(self, places: Sequence[Placed], salt: str, named: dict[Name, Source]) -> list[Source]:
        """In order; a name may be used behind the part that gives it."""
        found: list[Source] = []
        left = self._media.request_bytes
        for place, part in places:
            source = self._sources.open(part, place)
            if part.uuid is not None:
                name = Name(salt, part.modality, part.uuid)
                if source is not None:
                    named[name] = source
                else:
                    source = named.get(name) or self.known.get(name)
                    if source is None:
                        raise bad(place, f"its uuid {part.uuid!r} is not known (any more)")
            elif source is None:
                raise missing_content(part, place)
            left -= source.num_bytes
            if left < 0:
                text = f"more than {self._media.request_bytes} bytes of media in one request"
                raise TooLarge(text, param="messages")
            found.append(source)
        return found


def _places(body: ChatRequest) -> list[Placed]:
    """Every part that names an item, in the order of the chat, with its place in the request."""
    parts = [
        (place_of(i, j), part)
        for i, message in enumerate(body.messages)
        if isinstance(message.content, list)
        for j, part in enumerate(message.content)
        if isinstance(part, MediaContent)
    ]
    return [
        (Place(f"{part.modality.value.replace('_', ' ')} {index}", where), part)
        for index, (where, part) in enumerate(parts)
    ]
