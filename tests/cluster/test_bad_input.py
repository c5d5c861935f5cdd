"""Bad input: a 4xx in OpenAI's format that names the cause, and nobody else is hurt.

Each case is asked as a whole answer and as a stream. The error comes with its own HTTP status both
times; then a good request is answered, and nothing of the bad one is held anywhere.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.cluster.running import Cluster, data_url, image_part, picture
from tests.media.site import Site, body

MAX_CONTEXT = 600
MAX_PIXELS = 100_000
MAX_BYTES = 300_000
ANSWER_S = 10.0

ERRORS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    404: openai.NotFoundError,
    413: openai.APIStatusError,
    422: openai.UnprocessableEntityError,
}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A web server that has one picture."""
    site = Site()
    site.pages["/good.png"] = body(base64.b64decode(data_url(picture(56, 56)).partition(",")[2]))
    yield site
    site.close()


@pytest.fixture(scope="module")
def cluster(path: Path) -> Iterator[Cluster]:
    cluster = Cluster(
        path,
        "1E1P1D",
        f"language.max_context={MAX_CONTEXT}",
        f"media.image.max_pixels={MAX_PIXELS}",
        f"media.image.max_bytes={MAX_BYTES}",
        "media.allow_private_addresses=true",
        "wire.heartbeat_s=0.1",
    )
    yield cluster
    assert cluster.stop() == 0


@pytest.fixture(scope="module")
def strict(path: Path) -> Iterator[Cluster]:
    """All stages in one process, and private addresses are refused, which is the default."""
    cluster = Cluster(path, "EPD", "wire.heartbeat_s=0.1")
    yield cluster
    assert cluster.stop() == 0


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def inline(data: bytes, kind: str = "image/png") -> dict[str, Any]:
    return image(f"data:{kind};base64,{base64.b64encode(data).decode()}")


def truncated_jpeg() -> bytes:
    whole = io.BytesIO()
    picture(160, 120).save(whole, "JPEG")
    return whole.getvalue()[: len(whole.getvalue()) // 2]


GOOD = image_part(picture(84, 56))
TEXT = {"type": "text", "text": "What is it?"}


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def ask(client: openai.OpenAI, *, stream: bool = False, **changes: Any) -> Any:
    """One greedy chat request through the stock client."""
    asked = {"messages": user(GOOD, TEXT), "temperature": 0, "max_tokens": 8, **changes}
    return client.chat.completions.create(stream=stream, **asked)


def refusal(cluster: Cluster, *, stream: bool, **changes: Any) -> openai.APIStatusError:
    """The error that the stock client raises."""
    with (
        cluster.client(timeout=ANSWER_S) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        ask(client, stream=stream, **{"model": cluster.model, **changes})
    error = caught.value
    assert type(error) is ERRORS[error.status_code]
    check_shape(error.response.headers["content-type"], error.response.json())
    return error


def check_shape(kind: str, found: Any) -> None:
    """OpenAI's error body, and no part of a stream."""
    assert kind == "application/json"
    assert set(found) == {"error"}
    error = found["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"] and error["code"]


def check_unhurt(cluster: Cluster) -> None:
    """The next good request is answered, then nothing is held."""
    with cluster.client(timeout=60) as client:
        answer = ask(client, model=cluster.model)
    assert answer.choices[0].message.content
    cluster.wait_until_idle()


Url = Callable[[Site], str]

UNREACHABLE: dict[str, tuple[Url, str]] = {
    "nobody listens": (lambda site: "http://127.0.0.1:1/cat.png", "could not connect"),
    "metadata address": (lambda site: "http://169.254.169.254/", "address not allowed"),
    "no such host": (lambda site: "http://cat.invalid/cat.png", "host not found"),
    "HTTP 404": (lambda site: f"{site.url}/none.png", "HTTP 404"),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_an_image_that_cannot_be_fetched(cluster: Cluster, site: Site, case: str) -> None:
    make_url, reason = UNREACHABLE[case]
    for stream in (False, True):
        error = refusal(cluster, stream=stream, messages=user(image(make_url(site)), TEXT))
        assert error.status_code == 422
        assert error.body == {
            "message": f"image 0: {reason}",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_media",
        }
    check_unhurt(cluster)


def test_a_private_address_is_not_even_connected_to(strict: Cluster, site: Site) -> None:
    """The same URL that works where the operator allows private addresses."""
    seen = len(site.seen)
    for stream in (False, True):
        error = refusal(
            strict, stream=stream, messages=user(GOOD, image(f"{site.url}/good.png"), TEXT)
        )
        assert error.status_code == 422
        assert "image 1: address not allowed" in error.message
    assert len(site.seen) == seen
    check_unhurt(strict)


def test_the_same_address_is_fetched_where_it_is_allowed(cluster: Cluster, site: Site) -> None:
    with cluster.client() as client:
        answer = ask(
            client, model=cluster.model, messages=user(image(f"{site.url}/good.png"), TEXT)
        )
    assert answer.usage.prompt_tokens > 0


FILES: dict[str, tuple[Callable[[], dict[str, Any]], int, str]] = {
    "truncated JPEG": (lambda: inline(truncated_jpeg(), "image/jpeg"), 422, "truncated JPEG"),
    "a text file called .png": (lambda: inline(b"just words\n"), 422, "not a readable PNG"),
    "too many pixels": (
        lambda: image(data_url(picture(400, 300), "JPEG")),
        422,
        f"400x300 pixels, more than the limit of {MAX_PIXELS}",
    ),
    "too many bytes": (
        lambda: inline(b"x" * (MAX_BYTES + 1)),
        413,
        f"{MAX_BYTES + 1} bytes, {MAX_BYTES} are allowed",
    ),
    "too narrow for the model": (lambda: image_part(picture(800, 2)), 422, "aspect ratio"),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("place", [0, 2])
def test_one_bad_image_of_three_is_the_one_that_is_named(
    cluster: Cluster, case: str, place: int
) -> None:
    make, status, reason = FILES[case]
    parts = [GOOD, GOOD, GOOD]
    parts[place] = make()
    for stream in (False, True):
        error = refusal(cluster, stream=stream, messages=user(*parts, TEXT))
        assert error.status_code == status
        assert f"image {place}: " in error.message
        assert reason in error.message
    check_unhurt(cluster)


def test_a_text_file_called_png_on_a_web_server(cluster: Cluster, site: Site) -> None:
    site.pages["/text.png"] = body(b"just words\n")
    for stream in (False, True):
        messages = user(image(f"{site.url}/good.png"), image(f"{site.url}/text.png"))
        error = refusal(cluster, stream=stream, messages=messages)
        assert error.status_code == 422
        assert "image 1: not a readable PNG" in error.message
    check_unhurt(cluster)


def test_an_empty_file_on_a_web_server(cluster: Cluster, site: Site) -> None:
    site.pages["/empty.png"] = body(b"")
    for stream in (False, True):
        messages = user(image(f"{site.url}/empty.png"))
        error = refusal(cluster, stream=stream, messages=messages)
        assert error.status_code == 422
        assert "image 0: 0 bytes" in error.message
    check_unhurt(cluster)


URLS = {
    "0 bytes": ("data:image/png;base64,", "holds no data"),
    "bad base64": ("data:image/png;base64,@@@@", "base64 is not valid"),
    "cut base64": ("data:image/png;base64,AAAAA", "base64 is not valid"),
    "no comma": ("data:image/png;base64", "no comma"),
    "another scheme": ("ftp://cat.invalid/cat.png", "must begin with https://, http:// or data:"),
    "a local file": ("file:///etc/passwd", "reads no local files"),
    "no host": ("http:///cat.png", "names no host"),
}


@pytest.mark.parametrize("case", URLS)
def test_a_url_that_is_none_is_named_by_its_field(cluster: Cluster, case: str) -> None:
    url, reason = URLS[case]
    for stream in (False, True):
        error = refusal(cluster, stream=stream, messages=user(GOOD, image(url), TEXT))
        assert error.status_code == 400
        assert error.param is not None and error.param.startswith("messages[0].content[1]")
        assert reason in error.message
    check_unhurt(cluster)


PROMPTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "text": lambda: [{"role": "user", "content": "word " * 1000}],
    "far too much text": lambda: [{"role": "user", "content": "word " * 200_000}],
    "images": lambda: user(*[image(data_url(picture(300, 300, n), "JPEG")) for n in range(6)]),
}


@pytest.mark.parametrize("case", PROMPTS)
def test_a_prompt_that_is_too_long(cluster: Cluster, case: str) -> None:
    for stream in (False, True):
        error = refusal(cluster, stream=stream, messages=PROMPTS[case]())
        assert error.status_code == 400
        assert error.code == "context_length_exceeded"
        assert error.param == "messages"
        assert "tokens" in error.message
    check_unhurt(cluster)


FIELDS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "unknown model": ({"model": "gpt-17"}, 404, "model", "no model 'gpt-17'"),
    "n=0": ({"n": 0}, 400, "n", "n: "),
    "tools": (
        {"tools": [{"type": "function"}]},
        400,
        "tools[0].function",
        "tools[0].function: Field required",
    ),
    "no messages": ({"messages": []}, 400, "messages", "messages: "),
    "unknown field": (
        {"extra_body": {"tempreature": 1}},
        400,
        "tempreature",
        "unknown field: tempreature",
    ),
    "a sound": (
        {"messages": user({"type": "audio_url", "audio_url": {"url": "http://cat.invalid/"}})},
        400,
        "messages[0].content[0]",
        "this model takes no audio; it takes image",
    ),
    "a smell": (
        {"messages": user({"type": "smell_url", "smell_url": {"url": "http://cat.invalid/"}})},
        400,
        "messages[0].content[0]",
        "type must be one of text, image_url, video_url",
    ),
    "a temperature in words": ({"temperature": "hot"}, 400, "temperature", "temperature: "),
    "a negative number of tokens": ({"max_tokens": -1}, 400, "max_tokens", "max_tokens: "),
    "an unknown role": (
        {"messages": [{"role": "wizard", "content": "hi"}]},
        400,
        "messages[0].role",
        "messages[0].role: ",
    ),
    "content that is a number": (
        {"messages": [{"role": "user", "content": 5}]},
        400,
        "messages[0].content",
        "must be a string or a list of parts",
    ),
    "too many images": ({"messages": user(*[GOOD] * 17)}, 400, "messages", "17 items"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_field_that_is_wrong_is_named(cluster: Cluster, case: str) -> None:
    changes, status, param, word = FIELDS[case]
    for stream in (False, True):
        error = refusal(cluster, stream=stream, **changes)
        assert error.status_code == status
        assert error.param == param
        assert word in error.message
    check_unhurt(cluster)


BODIES = {
    "no JSON": b"{",
    "nothing": b"",
    "not text": b"\xff\xfe\x00",
    "a list": b"[]",
    "a string": b'"hi"',
    "deeply nested": b"[" * 100_000,
    "no model": json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode(),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_is_malformed(cluster: Cluster, case: str) -> None:
    response = httpx.post(
        f"{cluster.url}/v1/chat/completions", content=BODIES[case], timeout=ANSWER_S
    )
    assert response.status_code == 400
    check_shape(response.headers["content-type"], response.json())
    check_unhurt(cluster)
