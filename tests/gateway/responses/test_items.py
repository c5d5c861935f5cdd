"""Items of a conversation as the messages of a chat."""

from __future__ import annotations

from typing import Any

import pytest

from epd.errors import BadRequest
from epd.gateway.responses.items import Chat


def chat(*items: Any) -> Chat:
    found = Chat()
    found.add(items, lambda i: f"input[{i}]")
    return found


def call(number: int) -> dict[str, Any]:
    return {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}"}


def called(number: int) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}


OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "64"}


def test_calls_belong_to_the_turn_that_they_were_part_of() -> None:
    found = chat(
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Let me see."},
        call(1),
        call(2),
        OUTPUT,
        {**OUTPUT, "output": [{"type": "input_text", "text": "rain"}]},
        call(3),
    )
    assert found.messages == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [called(1), called(2)]},
        {"role": "tool", "tool_call_id": "c1", "content": "64"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "rain"}]},
        {"role": "assistant", "content": None, "tool_calls": [called(3)]},
    ]
    assert found.places == [f"input[{i}]" for i in (0, 1, 4, 5, 6)]


def test_reasoning_belongs_to_what_was_said_after_it() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm"}]}
    short = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Ah"}]}
    found = chat(
        {"role": "user", "content": "?"},
        thought,
        {"role": "assistant", "content": "Yes"},
        short,
        call(1),
        thought,
    )
    assert found.messages[1:] == [
        {"role": "assistant", "content": "Yes", "reasoning_content": "Hm"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Ah",
            "tool_calls": [called(1)],
        },
    ]


@pytest.mark.parametrize("name", ["call_id", "name", "arguments"])
def test_a_call_without_one_of_its_fields_is_refused(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        chat({key: value for key, value in call(1).items() if key != name})
    assert caught.value.param == f"input[0].{name}"


def test_instructions_stand_before_all() -> None:
    """With a system message that can be joined, as one; else in front of it."""
    parts = [{"type": "input_image", "image_url": "x"}]
    for content, roles in (("a", ["system"]), (parts, ["system", "system"])):
        found = chat({"role": "system", "content": content})
        found.instruct("Rhyme.")
        assert [message["role"] for message in found.messages] == roles
        assert found.messages[0]["content"].startswith("Rhyme.")
        assert len(found.places) == len(roles)
