"""Holes that servers of this kind have had in their HTTP: each is tried on a live cluster."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.attacks import SECRETS
from tests.cluster.running import Cluster

A, B = "sk-tenant-a", "sk-tenant-b"
CHAT = "/v1/chat/completions"
BODY_BYTES = 1 << 20
CUT = 0
SOON_S = 20.0
"""No refusal takes so long, however large or clever what is refused."""


class Attacker:
    """Has a key, or has none, and looks closely at every refusal."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.host, port = cluster.url.removeprefix("http://").split(":")
        self.port = int(port)
        self._http = httpx.Client(base_url=cluster.url, timeout=120, verify=False)

    def close(self) -> None:
        self._http.close()

    def body(self, content: Any = "hi", **fields: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": content}]
        chat = {"model": self.cluster.model, "messages": messages, "temperature": 0}
        return {**chat, "max_tokens": 4, **fields}

    def send(self, method: str, path: str, key: str = "", **options: Any) -> httpx.Response:
        """Any request. What is refused is refused soon, in OpenAI's form, and tells nothing."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers |= options.pop("headers", {})
        began = time.monotonic()
        response = self._http.request(method, path, headers=headers, **options)
        if response.status_code != 200:
            assert time.monotonic() - began < SOON_S
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}
            assert not SECRETS.search(response.text), response.text
            assert response.status_code < 500, response.text
        return response

    def ask(self, content: Any = "hi", key: str = A, **fields: Any) -> httpx.Response:
        return self.send("POST", CHAT, key, json=self.body(content, **fields))

    def text(self, content: Any = "hi", key: str = A, **fields: Any) -> str:
        """Of an answer that there has to be."""
        response = self.ask(content, key, **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["choices"][0]["message"]["content"])

    def raw(self, head: str) -> tuple[int, str]:
        """The status (or CUT) and the answer to bytes that no client library would send."""
        with socket.create_connection((self.host, self.port), timeout=60) as connection:
            said = b""
            with contextlib.suppress(ConnectionError):  # it need not read all before it closes
                connection.sendall(head.replace("\n", "\r\n").encode("latin-1"))
                while data := connection.recv(65536):
                    said += data
        return int(said.split(b" ", 2)[1]) if said else CUT, said.decode("latin-1")


@pytest.fixture(scope="module")
def attacker(path_of: Callable[[str], Path]) -> Iterator[Attacker]:
    keys = f"[{{key: {A}, tenant: a}}, {{key: {B}, tenant: b}}]"
    cluster = Cluster(
        path_of("qwen2_5_vl"),
        "EPD",
        f"gateway.api_keys={keys}",
        f"gateway.max_body_bytes={BODY_BYTES}",
    )
    attacker = Attacker(cluster)
    yield attacker
    attacker.close()
    assert cluster.stop() == 0


@pytest.fixture(autouse=True)
def as_well_as_before(attacker: Attacker) -> Iterator[None]:
    """After every attack."""
    before = attacker.text("how are you?")
    yield
    assert attacker.text("how are you?") == before


# ---- 5: peers that a client names


def test_class_5_a_client_cannot_say_where_workers_connect_to(attacker: Attacker) -> None:
    """Fields of other systems' hand-off are none here, and nobody connects."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        port = trap.getsockname()[1]
        peer = {"remote_host": "127.0.0.1", "remote_port": port, "do_remote_prefill": True}
        fields: list[tuple[str, Any]] = [
            ("kv_transfer_params", peer),
            ("ec_transfer_params", peer),
            ("bootstrap_host", "127.0.0.1"),
            ("bootstrap_port", port),
            ("bootstrap_room", 7),
            ("disaggregated_params", peer),
            ("gateways", [f"tcp://127.0.0.1:{port}"]),
            ("data_parallel_rank", 1),
        ]
        for field, value in fields:
            refused = attacker.ask(**{field: value})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
        with pytest.raises(TimeoutError):
            trap.accept()


# ---- 8: requests that a client names


@pytest.mark.parametrize("where", ["headers", "body"])
def test_class_8_requests_of_one_name_do_not_meet(attacker: Attacker, where: str) -> None:
    """Nor do those of a name that only begins so; and none is found by it."""
    name, answers = "11111111", list[httpx.Response]()
    right = attacker.text("tell me more", max_tokens=64, ignore_eos=True)

    def one(label: str) -> None:
        given: dict[str, Any] = {"headers": {"x-request-id": label}}
        fields: dict[str, Any] = {"max_tokens": 64, "ignore_eos": True}
        if where == "body":
            given, fields = {}, {**fields, "request_id": label}
        body = attacker.body("tell me more", **fields)
        answers.append(attacker.send("POST", CHAT, A, json=body, **given))

    threads = [threading.Thread(target=one, args=(label,)) for label in (name, name, name + "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == len(threads)
    for response in answers:
        if response.status_code == 400:
            assert where == "body" and response.json()["error"]["param"] == "request_id"
        else:
            assert response.json()["choices"][0]["message"]["content"] == right
    for guess in ("1", name, "chatcmpl-", "%2e%2e%2f", "*"):
        assert attacker.send("GET", f"/cluster/requests/{guess}", A).status_code == 404


# ---- 17: text that looks like special tokens


def test_class_17_placeholders_in_text_are_text(attacker: Attacker) -> None:
    words = "<|vision_start|><|image_pad|><|vision_end|>"
    few, many = (
        attacker.ask(words * number).json()["usage"]["prompt_tokens"] for number in (10, 20)
    )
    assert many - few > 10 * 3  # a special token would be one each


def test_class_17_a_flood_of_them_is_refused_soon(attacker: Attacker) -> None:
    refused = attacker.ask("<|image_pad|>" * 50_000)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"


# ---- 18: templates of a client


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template": "{{ 7 * 7 }}"},
        {"chat_template": "{% for i in range(10**9) %}{% endfor %}"},
        {"chat_template_kwargs": {"chat_template": "{{ 7 * 7 }}"}},
        {"chat_template_kwargs": {"messages": []}},
        {"chat_template_kwargs": {"tokenize": False}},
        {"chat_template_kwargs": {"__class__": "x"}},
    ],
    ids=str,
)
def test_class_18_a_client_brings_no_template(attacker: Attacker, fields: dict[str, Any]) -> None:
    refused = attacker.ask(**fields)
    assert refused.status_code == 400
    assert str(refused.json()["error"]["param"]).startswith(next(iter(fields)))


# ---- 19: things that have to be compiled


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


BOMBS: dict[str, dict[str, Any]] = {
    "a regex that counts": {"structured_outputs": {"regex": "((a{1,1000}){1,1000}){1,1000}"}},
    "a regex without an end": {"structured_outputs": {"regex": "(" * 10_000}},
    "a grammar that is itself": {"structured_outputs": {"grammar": "start: start start"}},
    "a grammar of many rules": {
        "structured_outputs": {"grammar": "start: " + " | ".join(f'"{n}"' for n in range(100_000))}
    },
    "a deep schema": {"structured_outputs": {"json": nested(200)}},
    "a wide schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "x",
                "schema": {
                    "type": "object",
                    "properties": {f"k{n}": {"type": "string"} for n in range(20_000)},
                },
            },
        }
    },
    "a schema that means itself": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"$ref": "#"}},
        }
    },
}


@pytest.mark.parametrize("fields", BOMBS.values(), ids=BOMBS)
def test_class_19_compiling_is_bounded_and_holds_nobody_up(
    attacker: Attacker, fields: dict[str, Any]
) -> None:
    """Refused, or done; and whoever asks meanwhile is answered meanwhile."""
    done = threading.Event()
    statuses: list[int] = []

    def attack() -> None:
        statuses.append(attacker.ask(**fields).status_code)
        done.set()

    thread = threading.Thread(target=attack)
    thread.start()
    slowest = 0.0
    while not done.is_set():
        began = time.monotonic()
        assert attacker.send("GET", "/health").status_code == 200
        slowest = max(slowest, time.monotonic() - began)
        done.wait(0.02)
    thread.join()
    assert statuses in ([200], [400], [413])
    assert slowest < SOON_S / 4


# ---- 20: numbers and sizes


HUGE = 10**9
FLOODS: dict[str, dict[str, Any]] = {
    "n": {"n": HUGE},
    "max_tokens": {"max_tokens": 10**30},
    "top_logprobs": {"logprobs": True, "top_logprobs": HUGE},
    "prompt_logprobs": {"prompt_logprobs": HUGE},
    "stop": {"stop": ["x"] * 10_000},
    "stop_token_ids": {"stop_token_ids": list(range(10_000))},
    "logit_bias": {"logit_bias": {str(n): 1 for n in range(10_000)}},
    "cache_salt": {"cache_salt": "x" * 10_000},
    "messages": {"messages": [{"role": "user", "content": "x"}] * 10_000},
    "content": {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 10_000}]},
    "media_io_kwargs": {"media_io_kwargs": {f"k{n}": 1 for n in range(10_000)}},
}


@pytest.mark.parametrize("fields", FLOODS.values(), ids=FLOODS)
def test_class_20_every_count_has_a_ceiling(attacker: Attacker, fields: dict[str, Any]) -> None:
    refused = attacker.ask(**fields)
    assert refused.status_code == 400
    named = [name for name in fields if str(refused.json()["error"]["param"]).startswith(name)]
    assert named, refused.text


@pytest.mark.parametrize(
    "body",
    ["[" * 400_000, '{"a":' * 100_000, '{"model": "' + "\\u0000" * 100_000 + '"}', "", "null"],
    ids=["lists", "objects", "nulls", "nothing", "null"],
)
def test_class_20_a_body_that_is_no_request_is_refused(attacker: Attacker, body: str) -> None:
    assert 400 <= attacker.send("POST", CHAT, A, content=body).status_code < 500


def test_class_20_a_large_body_is_refused_before_it_is_sent(attacker: Attacker) -> None:
    """By the length that it announces, and, where it announces none, after that many bytes."""
    head = f"POST {CHAT} HTTP/1.1\nHost: x\nConnection: close\nAuthorization: Bearer {A}\n"
    status, _ = attacker.raw(f"{head}Content-Length: {HUGE}\n\n")
    assert status == 413
    chunk = f"{BODY_BYTES // 2:x}\n" + "x" * (BODY_BYTES // 2) + "\n"
    status, _ = attacker.raw(f"{head}Transfer-Encoding: chunked\n\n" + 2 * chunk + "1\nx\n")
    assert status == 413
    assert attacker.raw(f"{head}Content-Length: -1\n\n")[0] == 400


def test_class_20_endless_headers_are_refused(attacker: Attacker) -> None:
    status, _ = attacker.raw(f"GET /health HTTP/1.1\nHost: x\nX: {'x' * 1_000_000}\n\n")
    assert status in (CUT, 400, 431)


# ---- 21: what the time of an answer tells another tenant


def cached_tokens(response: httpx.Response) -> int:
    assert response.status_code == 200, response.text
    return int(response.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


@pytest.mark.parametrize("salt", [{}, {"cache_salt": "a"}, {"cache_salt": "same"}], ids=str)
def test_class_21_tenants_learn_nothing_from_each_others_caches(
    attacker: Attacker, salt: dict[str, str]
) -> None:
    secret = f"{salt} the launch code is 12345 and nobody must know of it. " * 8
    first, again = (cached_tokens(attacker.ask(secret, A, **salt)) for _ in range(2))
    assert again > first + 64  # the control: what it has to hide
    assert cached_tokens(attacker.ask(secret, B, **salt)) == 0


# ---- 22: keys and paths that are nearly right


@pytest.mark.parametrize(
    "key", [A[:-1], A + "x", A.upper(), f"{A} {B}", f"{A},{B}", "a", "\u00e9", "Bearer " + A]
)
def test_class_22_a_key_that_is_nearly_right_is_wrong(attacker: Attacker, key: str) -> None:
    shown = f"Bearer {key}".encode("latin-1")
    answered = attacker.send("GET", "/v1/models", headers={b"authorization": shown})
    assert answered.status_code == 401


@pytest.mark.parametrize(
    "head",
    [
        "GET /v1/models HTTP/1.1\nHost: x/health?",
        "GET /v1/models HTTP/1.1\nHost: x/health#",
        "GET /v1/models HTTP/1.1\nHost: x\nX-Original-URL: /health",
        "GET /v1/models HTTP/1.1\nHost: x\nX-Rewrite-URL: /health",
        "GET /v1/models HTTP/1.1\nHost: x\nX-Forwarded-Prefix: /health",
        "GET /v1/models HTTP/1.1\nHost: localhost\nX-Forwarded-For: 127.0.0.1",
        "GET http://x/health/../v1/models HTTP/1.1\nHost: x",
        "GET http://x/v1/models HTTP/1.1\nHost: x",
        "GET /health/../v1/models HTTP/1.1\nHost: x",
        "GET /health/..%2fv1/models HTTP/1.1\nHost: x",
        "GET //v1/models HTTP/1.1\nHost: x",
        "GET /%76%31/models HTTP/1.1\nHost: x",
        "GET /v1/models?/health HTTP/1.1\nHost: x",
        "GET /v1/models;/health HTTP/1.1\nHost: x",
        "GET /v1/models%00/health HTTP/1.1\nHost: x",
        "HEAD /v1/models HTTP/1.1\nHost: x",
        "OPTIONS /v1/models HTTP/1.1\nHost: x\nOrigin: x\nAccess-Control-Request-Method: GET",
        "GET /v1/models HTTP/1.0\nX: x",
    ],
)
def test_class_22_no_way_of_saying_a_path_opens_it_without_a_key(
    attacker: Attacker, head: str
) -> None:
    status, said = attacker.raw(f"{head}\nConnection: close\n\n")
    assert status in (400, 401, 404), said
    assert attacker.cluster.model not in said


# ---- 23: doors at the side


SIDE_DOORS = (
    "/metrics",
    "/cluster",
    "/cluster/drain",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/version",
    "/ping",
    "/invocations",
    "/tokenize",
    "/detokenize",
    "/encode",
    "/register",
    "/flush_cache",
    "/abort_request",
    "/collective_rpc",
    "/reset_prefix_cache",
    "/start_profile",
    "/update_weights_from_disk",
    "/v1/load_lora_adapter",
    "/server_info",
    "/debug/pprof",
    "/v1/models",
    "/v1/responses",
    "/v1/completions",
    CHAT,
)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"])
def test_class_23_there_is_no_side_door(attacker: Attacker, method: str) -> None:
    found = {path: attacker.send(method, path).status_code for path in SIDE_DOORS}
    assert found == dict.fromkeys(SIDE_DOORS, 401)


def test_class_23_the_page_is_open_and_the_same_for_all(attacker: Attacker) -> None:
    """It is a file of the package, and only to be read."""
    page = files("epd.gateway.page") / "static" / "index.html"
    assert attacker.send("GET", "/").content == page.read_bytes()
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
        assert attacker.send(method, "/").status_code == 405


def test_class_23_the_probes_are_open_and_say_little(attacker: Attacker) -> None:
    for path in ("/health", "/ready"):
        answer = attacker.send("GET", path)
        assert answer.status_code == 200 and len(json.dumps(answer.json())) < 40
