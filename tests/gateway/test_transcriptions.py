"""/v1/audio/transcriptions over a scripted service."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pytest
from tokenizers import Tokenizer

from epd.errors import BadMedia, BadRequest
from epd.gateway import CallSpec
from epd.gateway.transcriptions.form import read_form
from epd.gateway.transcriptions.reading import PROMPT, window_of
from epd.models.spec import Checkpoint
from epd.types import PAST_THE_END, FinishReason, Modality
from tests.gateway.conftest import Serve
from tests.gateway.scripted import Last, ScriptedCall, ScriptedService

pytestmark = pytest.mark.anyio

PATH = "/v1/audio/transcriptions"
FILE = {"file": ("a.wav", b"RIFF\r\n--x\r\n\r\n\0", "audio/wav")}


@dataclass
class Windows(ScriptedService):
    """Says a word for each of so many windows; behind them the sound has ended."""

    words: tuple[str, ...] = ()
    tokenizer: Any = None

    async def submit(self, call: CallSpec) -> ScriptedCall:
        number = len(self.specs)
        if number < len(self.words):
            ids = tuple(self.tokenizer.encode(self.words[number]).ids)
            self.script = [Last(ids, FinishReason.LENGTH)]
        else:
            self.script = [BadMedia("the sound has ended", code=PAST_THE_END)]
        return await super().submit(call)


@pytest.fixture
def tokenizer_of(every: Checkpoint) -> Tokenizer:
    return Tokenizer.from_file(str(every.path / "tokenizer.json"))


async def test_windows_are_asked_until_the_sound_ends(
    serve: Serve, every: Checkpoint, tokenizer_of: Tokenizer
) -> None:
    service = Windows(words=("the", " quick", "fox"), tokenizer=tokenizer_of)
    async with serve(service, model=every) as client:
        body = (await client.post(PATH, files=FILE, data={"model": "tiny"})).json()
    assert body["text"] == "the quick fox"
    assert body["usage"]["type"] == "tokens" and body["usage"]["input_tokens"] == 3 * 7
    parts = [spec.draft.parts[0] for spec in service.specs]
    assert {(part.modality, part.source.data) for part in parts} == {
        (Modality.AUDIO, FILE["file"][1])
    }
    assert [(p.options.begin_s, p.options.most_s) for p in parts] == [
        (30.0 * number, 30.0) for number in range(4)
    ]
    assert {spec.sampling.temperature for spec in service.specs} == {0.0}
    said = tokenizer_of.decode(list(service.specs[0].draft.text[1]))
    assert PROMPT in said


async def test_the_text_alone_is_given_to_who_asks_for_it(
    serve: Serve, every: Checkpoint, tokenizer_of: Tokenizer
) -> None:
    service = Windows(words=("the fox",), tokenizer=tokenizer_of)
    async with serve(service, model=every) as client:
        response = await client.post(PATH, files=FILE, data={"response_format": "text"})
    assert response.text == "the fox"
    assert response.headers["content-type"].startswith("text/plain")


async def test_a_file_that_cannot_be_heard_is_an_error(serve: Serve, every: Checkpoint) -> None:
    """Also where the first window is behind the end already."""
    for code in ("invalid_media", PAST_THE_END):
        service = ScriptedService([BadMedia("no sound", code=code)])
        async with serve(service, model=every) as client:
            response = await client.post(PATH, files=FILE, data={"model": "tiny"})
        assert response.status_code == 422 and len(service.specs) == 1


@pytest.mark.parametrize(
    ("data", "files", "param"),
    [
        ({"model": "tiny"}, {}, "content-type"),
        ({"model": "tiny"}, {"smell": b"x"}, "file"),
        ({"model": "tiny"}, {"file": b""}, "file"),
        ({"model": "other"}, FILE, "model"),
        ({"response_format": "srt"}, FILE, "response_format"),
        ({"response_format": "verbose_json"}, FILE, "response_format"),
        ({"temperature": "1"}, FILE, "temperature"),
        ({"language": "en"}, FILE, "language"),
        ({"stream": "true"}, FILE, "stream"),
        ({"mood": "1"}, FILE, "mood"),
        ({"max_completion_tokens": "0"}, FILE, "max_completion_tokens"),
        ({"max_completion_tokens": "x"}, FILE, "max_completion_tokens"),
    ],
)
async def test_a_fault_names_its_field(
    serve: Serve, every: Checkpoint, data: dict[str, str], files: Any, param: str
) -> None:
    service = ScriptedService()
    async with serve(service, model=every) as client:
        response = await client.post(PATH, data=data, files=files)
    assert response.status_code == (404 if param == "model" else 400), response.text
    assert response.json()["error"]["param"] == param
    assert service.specs == []


async def test_a_model_that_does_not_listen_says_so(serve: Serve) -> None:
    async with serve(ScriptedService()) as client:
        response = await client.post(PATH, files=FILE)
    assert response.status_code == 400
    assert "takes no audio" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"--x",
        b"--x\r\n\r\n",
        b"--x\r\ncontent-disposition: form-data\r\n\r\na\r\n--x--",
        b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\nb',
        b"\0" * 100,
        b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\nb\r\n' * 40,
    ],
)
def test_bytes_that_are_no_form_are_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        read_form(raw, "multipart/form-data; boundary=x")


def test_the_window_is_what_the_checkpoint_listens_to(
    every: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("window")
    (folder / "preprocessor_config.json").write_text(json.dumps({"chunk_length": 9}))
    other = dataclasses.replace(every, path=folder)
    assert (window_of(every.path), window_of(other.path)) == (30.0, 9.0)
