"""How load tools read a stream: what starts their clocks, and where their counts come from.

Each is the tool's own rule in a few lines; an answer that it would misread fails an assertion.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Read:
    """What a tool makes of an answer. A count that it does not take from there is None."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


def whole(answer: str) -> Read:
    """A JSON object."""
    body = json.loads(answer)
    choice = body["choices"][0]
    return _read(
        choice["message"]["content"] if "message" in choice else choice["text"], body["usage"]
    )


def vllm(answer: str) -> Read:
    """Messages end with an empty line; counts come from a chunk that brings no output."""
    text, usage, started = "", None, False
    for data in _messages(answer):
        choices = data.get("choices")
        delta = choices[0]["delta"] if choices else {}
        if delta.get("content") or (delta.get("content") == "" and "role" not in delta):
            started = True
            text += delta["content"]
        elif data.get("usage"):
            usage = data["usage"]
    assert started, "never received a chunk to tell the time of the first token"
    return _read(text, usage)


def sglang(answer: str) -> Read:
    """Each line is JSON after its prefix, comments are not expected; every chunk has a choice.

    (Newer ones forgive a chunk without choices, older ones do not.) Without usage, the answer is
    taken to be as long as was asked for.
    """
    text = ""
    for line in filter(None, answer.split("\n")):
        said = line.removeprefix("data: ")
        if said != "[DONE]":
            text += json.loads(said)["choices"][0]["delta"].get("content") or ""
    assert text, "never received text to tell the time of the first token"
    return Read(text, None, None)


def aiperf(answer: str) -> Read:
    """Only objects of the known kind count."""
    chunks = _messages(answer)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    return _read(_text(chunks), _last_usage(chunks))


def guidellm(answer: str) -> Read:
    """An error in the stream fails the request, and usage comes with every chunk."""
    chunks = _messages(answer)
    assert not any("error" in chunk for chunk in chunks)
    assert all(chunk["usage"] for chunk in chunks)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    return _read(_text(chunks), _last_usage(chunks))


def evalscope(answer: str) -> Read:
    """The last chunk has the usage."""
    chunks = _messages(answer)
    return _read(_text(chunks), chunks[-1]["usage"])


def vllm_texts(answer: str) -> Read:
    """Every chunk that has choices brings output."""
    text, usage, started = "", None, False
    for data in _messages(answer):
        if choices := data.get("choices"):
            started = True
            text += choices[0]["text"]
        elif data.get("usage"):
            usage = data["usage"]
    assert started, "never received a chunk to tell the time of the first token"
    return _read(text, usage)


def sglang_texts(answer: str) -> Read:
    """As of chats, and a chunk without choices is forgiven by none."""
    lines = [line.removeprefix("data: ") for line in answer.split("\n") if line]
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    return Read("".join(chunk["choices"][0]["text"] for chunk in chunks), None, None)


def evalscope_texts(answer: str) -> Read:
    """The last chunk has the usage."""
    chunks = _messages(answer)
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    texts = [choice["text"] for chunk in chunks for choice in chunk["choices"]]
    return _read("".join(texts), chunks[-1]["usage"])


OF_CHATS = (vllm, sglang, aiperf, guidellm, evalscope)
OF_TEXTS = (vllm_texts, sglang_texts, evalscope_texts)
READERS: dict[str, Callable[[str], Read]] = {
    reader.__name__: reader for reader in (whole, *OF_CHATS, *OF_TEXTS)
}


def _messages(answer: str) -> list[dict[str, Any]]:
    messages = [message for message in answer.split("\n\n") if message]
    assert messages.pop() == "data: [DONE]"
    return [json.loads(message.removeprefix("data: ")) for message in messages]


def _text(chunks: list[dict[str, Any]]) -> str:
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def _last_usage(chunks: list[dict[str, Any]]) -> dict[str, int] | None:
    return next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), None)


def _read(text: str, usage: dict[str, int] | None) -> Read:
    if usage is None:
        return Read(text, None, None)
    return Read(text, usage["prompt_tokens"], usage["completion_tokens"])
