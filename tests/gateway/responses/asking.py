"""Responses, asked over HTTP of a gateway whose cluster is scripted."""

from __future__ import annotations

import json
from typing import Any

import httpx

PATH = "/v1/responses"


def ask(said: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "input": said, **fields}


def user(*parts: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": list(parts)}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """Each event's data; its name says the same as its type. The end mark is the last."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    blocks = [block for block in response.text.split("\n\n") if block]
    assert blocks.pop() == "data: [DONE]"
    found = []
    for block in blocks:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def rebuilt(streamed: list[dict[str, Any]]) -> list[Any]:
    """The items that the events of a stream make, as a client puts them together."""
    items: list[dict[str, Any]] = []
    for event in streamed:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(items)
            items.append(event["item"])
        elif kind == "response.content_part.added":
            items[event["output_index"]]["content"].append(event["part"])
        elif kind.endswith("arguments.delta"):
            items[event["output_index"]]["arguments"] += event["delta"]
        elif kind.endswith(".delta"):
            part = items[event["output_index"]]["content"][event["content_index"]]
            part["text"] += event["delta"]
            if "logprobs" in part:
                part["logprobs"] += event["logprobs"]
        elif kind == "response.output_item.done":
            item = items[event["output_index"]]
            item["status"] = event["item"]["status"]
            for part, done in zip(
                item.get("content", ()), event["item"].get("content", ()), strict=True
            ):
                part.update({k: v for k, v in done.items() if k == "logprobs"})
            assert item == event["item"]
    return items


def texts(response: dict[str, Any]) -> list[str]:
    return [part["text"] for item in response["output"] for part in item.get("content", ())]
