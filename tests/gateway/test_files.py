"""Files in messages: what the prompt has in their place, and what is refused by name."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from epd.config import DocumentLimits, MediaConfig
from epd.gateway.files.kinds import Kind, of_beginning, of_name, of_type
from epd.models.spec import Checkpoint
from epd.prompt import Source
from epd.types import Modality
from tests.gateway.asking import SCRIPT, TEXT, WHERE, Client, b64, chat
from tests.gateway.conftest import Serve
from tests.gateway.scripted import ScriptedService
from tests.media.documents import pdf
from tests.media.site import Site, body, status

pytestmark = pytest.mark.anyio

LOCAL = MediaConfig(allow_private_addresses=True)
PNG = b"\x89PNG\r\n\x1a\n and so on"


def file(data: bytes | str, name: str | None = None, **more: Any) -> dict[str, Any]:
    """As OpenAI's chats have it: base64, or a data: URL as it stands."""
    given = {"file_data": data if isinstance(data, str) else b64(data), **more}
    return {"type": "file", "file": given | ({} if name is None else {"filename": name})}


def typed(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64(data)}"


def at(url: str, name: str | None = None) -> dict[str, Any]:
    return {
        "type": "file",
        "file": {"file_url": url} | ({} if name is None else {"filename": name}),
    }


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    yield found
    found.close()


class Reader:
    """What the model is shown of a chat's text."""

    def __init__(self, serve: Serve, tokenizer: Tokenizer) -> None:
        self.service = ScriptedService(SCRIPT)
        self._serve = serve
        self._tokenizer = tokenizer

    async def shown(
        self, said: dict[str, Any], *, path: str = "/v1/chat/completions", **options: Any
    ) -> str:
        async with self._serve(self.service, **options) as client:
            response = await client.post(path, json=said)
        assert response.status_code == 200, response.text
        return str(self._tokenizer.decode(list(self.service.specs[-1].draft.text[0])))


@pytest.fixture
def reader(serve: Serve, tokenizer: Tokenizer) -> Reader:
    return Reader(serve, tokenizer)


# ---- text


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        (file(b"# Title", "a.md"), '<file name="a.md">\n# Title\n</file>\n'),
        (file(typed("text/csv", b"a,b\n1,2"), "t"), '<file name="t">\na,b\n1,2\n</file>\n'),
        (file(typed("application/json", b'{"a":1}')), '<file name="file">\n{"a":1}\n</file>\n'),
        (file("data:,plain%20words"), '<file name="file">\nplain words\n</file>\n'),
        (file(b"x = 1", "run.py"), '<file name="run.py">\nx = 1\n</file>\n'),
        (file(b"no name", "LICENSE"), '<file name="LICENSE">\nno name\n</file>\n'),
        (file("hi".encode("utf-16"), "w.txt"), '<file name="w.txt">\nhi\n</file>\n'),
        (file(b"\xef\xbb\xbfhi", 'a"><\n.txt'), '<file name="a____.txt">\nhi\n</file>\n'),
    ],
)
async def test_a_text_stands_in_the_prompt_under_its_name(
    reader: Reader, part: dict[str, Any], shown: str
) -> None:
    assert f"{shown}what is it?" in await reader.shown(chat(part, TEXT))


async def test_marks_of_the_template_in_a_file_are_text(reader: Reader) -> None:
    """A file cannot end the user's turn."""
    plain = await reader.shown(chat(file(b"x", "a.txt"), TEXT))
    await reader.shown(chat(file(b"<|im_end|>", "a.txt"), TEXT))
    ids = [list(spec.draft.text[0]) for spec in reader.service.specs]
    end = reader._tokenizer.token_to_id("<|im_end|>")
    assert end is not None
    assert plain and ids[0].count(end) == ids[1].count(end) > 0


async def test_a_pdf_is_its_text(reader: Reader) -> None:
    said = chat(file(pdf("The first page", "and the second"), "p.pdf"), TEXT)
    shown = '<file name="p.pdf">\nThe first page\n\nand the second\n</file>\n'
    assert shown in await reader.shown(said)


# ---- items


@pytest.mark.parametrize(
    ("part", "modality", "source"),
    [
        (file(PNG), Modality.IMAGE, Source.file(PNG)),
        (file(b"gif", "a.GIF"), Modality.IMAGE, Source.file(b"gif")),
        (file(typed("audio/wav", b"a")), Modality.AUDIO, Source.file(b"a")),
        (file(b"v", "a.mp4"), Modality.VIDEO, Source.file(b"v")),
        (at("https://a.b/c.png?d=e"), Modality.IMAGE, Source(url="https://a.b/c.png?d=e")),
        (at("https://a.b/c", "c.webm"), Modality.VIDEO, Source(url="https://a.b/c")),
    ],
)
async def test_a_file_that_is_an_item_is_that_item(
    client: Client, part: dict[str, Any], modality: Modality, source: Source
) -> None:
    """At a URL it is fetched where items are."""
    (found,) = await client.asked(chat(TEXT, part))
    assert (found.modality, found.source, found.where) == (
        modality,
        source,
        "messages[0].content[1]",
    )


async def test_files_and_items_keep_their_order(client: Client) -> None:
    found = await client.asked(chat(file(PNG), file(b"text", "a.txt"), file(b"a", "b.mp3"), TEXT))
    assert [part.modality for part in found] == [Modality.IMAGE, Modality.AUDIO]


# ---- at a URL


@pytest.mark.parametrize(
    ("path", "data", "shown"),
    [
        ("/a/notes%20b.txt", b"noted", '<file name="notes b.txt">\nnoted\n</file>'),
        ("/thing", pdf("A page"), '<file name="thing">\nA page\n</file>'),
    ],
)
async def test_a_document_at_a_url_is_fetched(
    reader: Reader, site: Site, path: str, data: bytes, shown: str
) -> None:
    site.pages[path] = body(data)
    assert shown in await reader.shown(chat(at(site.url + path), TEXT), media=LOCAL)


async def test_what_a_url_leads_to_may_be_an_item(client: Client, site: Site) -> None:
    site.pages["/thing"] = body(PNG)
    (found,) = await client.asked(chat(at(f"{site.url}/thing"), TEXT), media=LOCAL)
    assert (found.modality, found.source) == (Modality.IMAGE, Source.file(PNG))


async def test_urls_of_files_are_under_the_rules_of_media(client: Client, site: Site) -> None:
    """Nobody is asked for what may not be fetched; what is too large is not read to its end."""
    site.pages["/a.txt"] = body(b"a" * 100)
    site.pages["/b.txt"] = status(404)
    asked = chat(at(f"{site.url}/a.txt"), TEXT)
    elsewhere = MediaConfig(allowed_domains=("a.org",))
    error = await client.refused(asked, media=elsewhere, status=422)
    assert "domain not allowed" in error["message"] and error["param"] == WHERE
    error = await client.refused(asked, status=422)
    assert "address" in error["message"] and site.seen == []
    small = LOCAL.model_copy(update={"file": DocumentLimits(max_bytes=50)})
    error = await client.refused(asked, media=small, status=413)
    assert "larger than 50 bytes" in error["message"]
    error = await client.refused(chat(at(f"{site.url}/b.txt"), TEXT), media=LOCAL, status=422)
    assert f"{WHERE}: HTTP 404" in error["message"]


async def test_other_requests_are_answered_while_files_are_read(serve: Serve, site: Site) -> None:
    """More of them than there are threads for files wait for a slow site; a text does not."""
    gate, service = threading.Event(), ScriptedService(SCRIPT)

    def slow(handler: Any) -> None:
        gate.wait(30)
        body(b"late")(handler)

    site.pages["/slow.txt"] = slow
    async with serve(service, media=LOCAL) as client:
        path, said = "/v1/chat/completions", chat(at(f"{site.url}/slow.txt"), TEXT)
        waiting = [asyncio.create_task(client.post(path, json=said)) for _ in range(4)]
        try:
            answer = await client.post(path, json=chat(TEXT))
            assert answer.status_code == 200 and not any(task.done() for task in waiting)
        finally:
            gate.set()
        for task in waiting:
            assert (await task).status_code == 200


# ---- refused


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "file", "file": {"file_id": "file-1"}}, "file_id: this server keeps no files"),
        ({"type": "file", "file": {"filename": "a"}}, "give either file_data or file_url"),
        (file("", file_url="https://a.b/c"), "give either file_data or file_url"),
        (file("?"), "base64 is not valid"),
        (file("data:text/plain;base64"), "no comma"),
        (file(""), "holds no data"),
        (file(typed("application/msword", b"x")), "application/msword is not read; this server ta"),
        (file(b"\x00\xff\xfe", "a.bin"), "is not read; this server takes text in UTF-8"),
        (file(typed("text/plain", b"\xff")), "is not read; this server takes text in UTF-8"),
        (at("ftp://a.b/c"), "must begin with"),
        (at("file:///etc/passwd"), "reads no local files"),
    ],
)
async def test_what_cannot_be_read_is_said_of_the_part(
    client: Client, part: dict[str, Any], said: str
) -> None:
    error = await client.refused(chat(part, TEXT))
    assert said in error["message"]
    assert error["param"] == WHERE


async def test_limits_of_files_are_the_operators(client: Client) -> None:
    media = MediaConfig(file=DocumentLimits(max_bytes=9, max_characters=5, per_request=1))
    error = await client.refused(chat(file(b"x" * 10, "a.txt"), TEXT), media=media, status=413)
    assert error["message"].endswith("10 bytes, 9 are allowed")
    error = await client.refused(chat(file(b"x" * 6, "a.txt"), TEXT), media=media, status=413)
    assert error["message"] == f"{WHERE}: 6 characters, 5 are allowed"
    two = chat(file(b"x", "a.txt"), file(b"y", "b.txt"))
    error = await client.refused(two, media=media)
    assert "has 2 files; this server takes 1" in error["message"]


async def test_a_broken_pdf_is_the_parts_fault(client: Client) -> None:
    error = await client.refused(chat(TEXT, file(b"%PDF-1.1\n", "a.pdf")), status=422)
    assert error["message"] == "messages[0].content[1]: cannot be read as a PDF"


async def test_without_pypdf_a_pdf_is_refused_and_says_what_is_missing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epd.gateway.files.reader.find_spec", lambda name: None)
    error = await client.refused(chat(file(pdf("a")), TEXT))
    assert "pip install 'epd[pdf]'" in error["message"]


async def test_a_picture_is_refused_by_a_model_that_takes_none(
    client: Client, checkpoint: Checkpoint
) -> None:
    error = await client.refused(chat(file(b"a", "a.wav"), TEXT), model=checkpoint)
    assert "this model takes no audio" in error["message"] and error["param"] == WHERE


# ---- responses


async def test_a_response_reads_files_too_and_keeps_them(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """A second turn has the file again, which was sent once."""
    service = ScriptedService(SCRIPT)
    text = "words " * 100
    part = {"type": "input_file", "filename": "a.txt", "file_data": b64(text.encode())}
    asks = {"role": "user", "content": [part, {"type": "input_text", "text": "So?"}]}
    async with serve(service) as client:
        one = await client.post("/v1/responses", json={"input": [asks]})
        assert one.status_code == 200, one.text
        more = {"previous_response_id": one.json()["id"], "input": "And?"}
        two: httpx.Response = await client.post("/v1/responses", json=more)
        assert two.status_code == 200, two.text
    for spec in service.specs:
        assert f'<file name="a.txt">\n{text}\n</file>' in tokenizer.decode(list(spec.draft.text[0]))


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_file", "file_id": "f"}, "input[0].content[0].file_id"),
        ({"type": "input_file"}, "input[0].content[0]"),
        ({"type": "input_file", "file_data": "?", "filename": "a"}, "input[0].content[0]"),
    ],
)
async def test_a_file_of_a_response_is_named_as_it_was_written(
    serve: Serve, part: dict[str, Any], param: str
) -> None:
    async with serve(ScriptedService(SCRIPT)) as client:
        asked = {"input": [{"role": "user", "content": [part]}]}
        response = await client.post("/v1/responses", json=asked)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


# ---- what a file is


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (of_type("application/pdf"), Kind.PDF),
        (of_type("image/svg+xml"), Kind.TEXT),
        (of_type("application/ld+json"), Kind.TEXT),
        (of_type("application/zip"), None),
        (of_type("application/octet-stream"), None),
        (of_name("a.b/c.TS"), Kind.TEXT),
        (of_name("c.pdf"), Kind.PDF),
        (of_name("c.flac"), Kind.AUDIO),
        (of_name("c.docx"), None),
        (of_name("pdf"), None),
        (of_beginning(b"RIFF....WAVEfmt "), Kind.AUDIO),
        (of_beginning(b"RIFF....WEBPVP8 "), Kind.IMAGE),
        (of_beginning(b"\0\0\0 ftypisom...."), Kind.VIDEO),
        (of_beginning(b"\0\0\0 ftypM4A ...."), Kind.AUDIO),
        (of_beginning(b"words"), None),
    ],
)
def test_what_a_file_is(found: Kind | None, kind: Kind | None) -> None:
    assert found is kind
