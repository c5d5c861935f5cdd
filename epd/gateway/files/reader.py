"""From files in messages to what a prompt has in their place: text, or an item of the model's.

A text that is inline is read at once. What takes a while, a file at a URL or a PDF, is read in
threads of its own: until then FilesWait is raised, and the body is parsed once more in one of them.
PDFs are parsed in a decoder process, which may crash alone.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from epd.config import MediaConfig
from epd.errors import BadMedia, BadRequest, Overloaded, TooLarge
from epd.gateway.files import kinds
from epd.gateway.files.kinds import Kind
from epd.gateway.parts import (
    AudioContent,
    FileContent,
    ImageContent,
    ImageUrl,
    MediaUrl,
    TextContent,
    VideoContent,
)
from epd.gateway.schemas import ChatRequest
from epd.gateway.turns import ChatMessage
from epd.gateway.urls import Place, bad, check_size, check_url, decode
from epd.media import Policy
from epd.media.data_url import is_data_url, parse_data_url
from epd.prompt import place_of

if TYPE_CHECKING:
    from epd.media.decoders import Decoders
    from epd.media.fetch import Fetcher

Part = TextContent | ImageContent | VideoContent | AudioContent

_THREADS = 2
_MOST_SHOWN = 256  # characters of a name
_MOST_WAITING = 64
_NAMELESS = "file"
_UNFIT = re.compile(r'[\x00-\x1f\x7f"<>]')

T = TypeVar("T")


class FilesWait(Exception):
    """A body has a file that is not read here and now: see FileReader.read."""


class FileReader:
    """Thread-safe. What has to be fetched is under the rules of all media."""

    def __init__(self, media: MediaConfig) -> None:
        self._media = media
        self._limits = media.file
        self._policy = Policy(media)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="files")
        self._here = threading.local()
        self._lock = threading.Lock()
        self._num_waiting = 0
        self._decoders: Decoders | None = None
        self._fetcher: Fetcher | None = None

    def close(self) -> None:
        """Frees threads and processes; a file that is being read is given up."""
        if self._decoders is not None:
            self._decoders.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def read(self, parse: Callable[[bytes, str], T], raw: bytes, tenant: str) -> T:
        """A body in whose files FilesWait was raised."""
        if self._num_waiting >= _MOST_WAITING:
            raise Overloaded("too many requests with files are waiting to be read")
        self._num_waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._with_files, parse, raw, tenant)
        finally:
            self._num_waiting -= 1

    def _with_files(self, parse: Callable[[bytes, str], T], raw: bytes, tenant: str) -> T:
        self._here.may_wait = True
        return parse(raw, tenant)

    def opened(self, body: ChatRequest) -> ChatRequest:
        """The same without files. BadRequest, BadMedia and TooLarge name the part at fault."""
        if not (num := sum(len(_files(message)) for message in body.messages)):
            return body
        if num > self._limits.per_request:
            text = f"the request has {num} files; this server takes {self._limits.per_request}"
            raise BadRequest(text, param="messages")
        messages = [self._message(message, i) for i, message in enumerate(body.messages)]
        return body.model_copy(update={"messages": messages})

    def _message(self, message: ChatMessage, i: int) -> ChatMessage:
        if not _files(message) or not isinstance(message.content, list):
            return message
        parts = [
            self._part(part, Place("file", place_of(i, j)))
            if isinstance(part, FileContent)
            else part
            for j, part in enumerate(message.content)
        ]
        return message.model_copy(update={"content": parts})

    def _part(self, part: FileContent, place: Place) -> Part:
        given = part.file
        if given.file_id is not None:
            raise bad(place, "file_id: this server keeps no files; send file_data or file_url")
        if (given.file_data is None) == (given.file_url is None):
            raise bad(place, "give either file_data or file_url")
        if given.file_data is not None:
            return self._inline(given.file_data, given.filename or "", place)
        url = given.file_url or ""
        if is_data_url(url):
            return self._inline(url, given.filename or "", place)
        return self._at(url, given.filename or "", place)

    def _inline(self, text: str, name: str, place: Place) -> Part:
        """A data: URL, or base64 alone."""
        if not is_data_url(text):
            data = decode(text, place, most_bytes=self._limits.max_bytes)
            return self._read(data, "", name, place)
        try:
            inline = parse_data_url(text)
        except BadRequest as error:
            raise bad(place, error.message) from None
        data = inline.data
        if inline.base64:
            data = decode(inline.text, place, most_bytes=self._limits.max_bytes)
        check_size(len(data), place, self._limits.max_bytes)
        return self._read(data, inline.media_type, name, place)

    def _at(self, url: str, name: str, place: Place) -> Part:
        """An item's file is fetched where items are; all others here."""
        check_url(url, place, local=self._media.allowed_local_path is not None)
        name = name or unquote(urlsplit(url).path.rpartition("/")[2])
        with _named(place):
            self._policy.check(url)
        kind = kinds.of_name(name)
        if kind not in (None, Kind.TEXT, Kind.PDF):
            return _item(kind, url)
        self._wait()
        with _named(place):
            data = self._fetch(url)
        return self._read(data, "", name, place)

    def _read(self, data: bytes, media_type: str, name: str, place: Place) -> Part:
        if not data:
            raise bad(place, "the file holds no data")
        kind = kinds.of_type(media_type)
        if kind is None and not kinds.is_unsaid(media_type):
            raise bad(place, f"{media_type[:100]} is not read; this server takes {kinds.TAKEN}")
        kind = kind or kinds.of_name(name) or kinds.of_beginning(data[: kinds.HEAD_BYTES])
        if kind is Kind.PDF:
            return self._as_text(self._pdf(data, place), name, place)
        if kind in (None, Kind.TEXT):
            return self._as_text(_decoded(data, place), name, place)
        encoded = base64.b64encode(data).decode("ascii")
        return _item(kind, f"data:{media_type or 'application/octet-stream'};base64,{encoded}")

    def _as_text(self, text: str, name: str, place: Place) -> TextContent:
        if len(text) > self._limits.max_characters:
            raise TooLarge(
                f"{place.where}: {len(text)} characters, {self._limits.max_characters} are allowed",
                param=place.where,
            )
        shown = _UNFIT.sub("_", name)[:_MOST_SHOWN] or _NAMELESS
        return TextContent(type="text", text=f'<file name="{shown}">\n{text}\n</file>\n')

    def _pdf(self, data: bytes, place: Place) -> str:
        if find_spec("pypdf") is None:
            raise bad(place, "this server reads no PDF (its operator can: pip install 'epd[pdf]')")
        self._wait()
        with self._lock:
            if self._decoders is None:
                from epd.media.decoders import Decoders

                self._decoders = Decoders(_THREADS, self._media)
        with _named(place):
            return self._decoders.document(data)

    def _fetch(self, url: str) -> bytes:
        with self._lock:
            if self._fetcher is None:
                from epd.media.fetch import Fetcher

                self._fetcher = Fetcher(self._media)
        return self._fetcher.fetch_within(url, self._limits)

    def _wait(self) -> None:
        if not getattr(self._here, "may_wait", False):
            raise FilesWait


def _files(message: ChatMessage) -> list[FileContent]:
    parts = message.content if isinstance(message.content, list) else []
    return [part for part in parts if isinstance(part, FileContent)]


@contextmanager
def _named(place: Place) -> Iterator[None]:
    """Reasons for the client, with the part that they are about."""
    try:
        yield
    except (BadMedia, BadRequest, TooLarge) as error:
        raise type(error)(f"{place.where}: {error.message}", param=place.where) from error


def _item(kind: Kind | None, url: str) -> Part:
    if kind is Kind.IMAGE:
        return ImageContent(type="image_url", image_url=ImageUrl(url=url))
    if kind is Kind.VIDEO:
        return VideoContent(type="video_url", video_url=MediaUrl(url=url))
    return AudioContent(type="audio_url", audio_url=MediaUrl(url=url))


def _decoded(data: bytes, place: Place) -> str:
    """UTF-8, or UTF-16 that begins with its mark."""
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        raise bad(place, f"the file is not read; this server takes {kinds.TAKEN}") from None
