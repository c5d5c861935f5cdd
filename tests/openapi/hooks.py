"""What schemathesis cannot know: the model's name, and that answers should be short.

It loads this in its own environment.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Any

import schemathesis

MODEL = "EPD_MODEL"
NUM_TOKENS = 4
LIMITS = {
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
}
OTHER_LIMIT = "max_completion_tokens"
CHAT = "/v1/chat/completions"
OF_THE_MODEL = (
    "add_generation_prompt",
    "chat_template_kwargs",
    "continue_final_message",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "response_format",
    "structured_outputs",
    "tool_choice",
    "tools",
)
"""Fields of a chat that have a sense for some models, and with the right words, only."""
EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}


_calls = count()


def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A right type gets a right value; what is wrong in other ways stays so."""
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str):
        body["model"] = os.environ[MODEL]
    if case.path == CHAT and body.get("messages") and next(_calls) % 2:
        body["messages"] = [{"role": "user", "content": "hello"}]
        for name in OF_THE_MODEL:
            body.pop(name, None)
    if (limit := LIMITS.get(case.path)) is None:
        return
    given = [name for name in (limit, OTHER_LIMIT) if type(body.get(name)) is int]
    for name in given:
        body[name] = min(body[name], NUM_TOKENS)
    if not given and body.get(limit) is None:
        body[limit] = NUM_TOKENS


def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """The document describes events as one text, schemathesis checks them one by one."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            for answer in operation["responses"].values():
                if "text/event-stream" in answer.get("content", {}):
                    answer["content"]["text/event-stream"] = {"schema": EVENT}


schemathesis.hook(before_call)
schemathesis.hook(before_load_schema)
