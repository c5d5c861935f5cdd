"""`epd trace` over a gateway that answers as one does, and over the file of a load test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from epd.cli.main import main
from tests.observe.test_chrome import PATH, check

asked: list[tuple[str, Any]] = []


class Gateway(BaseHTTPRequestHandler):
    """Has one request behind it, and answers any question with two words."""

    def do_GET(self) -> None:
        asked.append((self.path, None))
        self._say({"requests": [{**PATH, "age_ms": 5000.0, "status": "200"}] * 2})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked.append((self.path, body))
        message = {"content": "A circle."}
        self._say({"choices": [{"message": message}], "usage": {"epd": PATH}})

    def _say(self, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def events(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text())["traceEvents"]
    check(found)
    return found


def test_the_last_requests_of_a_gateway_become_a_trace(url: str, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    assert main(["trace", "--url", url, "--output", str(file)]) == 0
    assert sum(event["name"] == "encode" for event in events(file)) == 2
    assert asked == [("/cluster/requests", None)]


def test_a_question_is_asked_answered_and_traced(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, picture = tmp_path / "t.json", tmp_path / "a.png"
    picture.write_bytes(b"1234")
    question = ["--ask", "What is it?", "--item", str(picture)]
    assert main(["trace", "--url", url, "--output", str(file), *question]) == 0
    assert capsys.readouterr().out.startswith("A circle.\n")
    ((_, body),) = asked
    image, text = body["messages"][0]["content"]
    assert image["image_url"]["url"] == "data:image/png;base64,MTIzNA=="
    assert text["text"] == "What is it?" and body["return_path"]
    assert {event["args"]["name"] for event in events(file) if event["name"] == "process_name"} == {
        *("client", "gateway", "encode-0", "prefill-0", "decode-0")
    }


def test_the_file_of_a_load_test_becomes_a_trace(tmp_path: Path) -> None:
    """The second rate begins when it began; requests that were not answered are left out."""
    of_server = {key: value for key, value in PATH.items() if key != "request_id"}
    good, bad = {"sent": 1.0, "ended": 1.3, "path": of_server}, {"path": None}
    lines = [
        {"started_at": 1000.0, "requests": [good, bad]},
        {"started_at": 1060.0, "requests": [good]},
    ]
    written, file = tmp_path / "out.jsonl", tmp_path / "t.json"
    written.write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert main(["trace", str(written), "--output", str(file)]) == 0
    encodes = [event["ts"] for event in events(file) if event["name"] == "encode"]
    assert encodes[1] - encodes[0] == 60_000_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"duration": 1}', "has no requests with their paths"),
        ("no json", "has no requests with their paths"),
        ('{"started_at": 1, "requests": []}', "nothing to draw"),
        (None, "No such file"),
    ],
)
def test_a_file_without_paths_is_refused(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.jsonl"
    if content is not None:
        file.write_text(content)
    assert main(["trace", str(file), "--output", str(tmp_path / "t.json")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--item", "a.png"], "give --ask too"),
        (["--ask", "a", "--item", "a.xyz"], "no picture, video or sound"),
        (["--ask", "a", "--item", "/nowhere/a.png"], "No such file"),
    ],
)
def test_an_item_that_cannot_be_sent_is_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", *flags]) == 2
    assert said in capsys.readouterr().err
