"""From the body of /v1/responses to what is to be done, and to the response's settings."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from epd.errors import BadRequest
from epd.gateway.errors import from_validation
from epd.gateway.responses.items import Chat, Item
from epd.gateway.responses.schemas import FunctionTool, ResponseRequest, TextFormat
from epd.gateway.schemas import ChatRequest
from epd.types import SamplingParams


def read_input(body: ResponseRequest) -> list[Item]:
    """A string is what a user says."""
    if isinstance(body.input, str):
        return [{"type": "message", "role": "user", "content": body.input}]
    return body.input


def as_chat(body: ResponseRequest, history: list[Item]) -> Chat:
    """All that was said before, and what is new."""
    chat = Chat()
    chat.add(history, lambda i: "previous_response_id")
    text = isinstance(body.input, str)
    chat.add(read_input(body), lambda i: "input" if text else f"input[{i}]")
    if body.instructions:
        chat.instruct(body.instructions)
    if not chat.messages:
        raise BadRequest("input must not be empty", param="input")
    return chat


def as_request(
    body: ResponseRequest, passed: dict[str, Any], chat: Chat, model_name: str
) -> ChatRequest:
    """The same in the words of a chat completion, with what is `passed` on as it is."""
    said: dict[str, Any] = {
        "model": body.model or model_name,
        "messages": chat.messages,
        "stream": body.stream,
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "logprobs": body.wants_logprobs or None,
        "top_logprobs": body.top_logprobs if body.wants_logprobs else None,
        "response_format": _format(body.text.format) if body.text else None,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        "tools": [_tool(tool) for tool in body.tools or ()] or None,
        "tool_choice": _choice(body),
        "parallel_tool_calls": body.parallel_tool_calls,
        "cache_salt": body.cache_salt,
        **passed,
    }
    given = {name: value for name, value in said.items() if value is not None}
    try:
        return ChatRequest.model_validate(given)
    except ValidationError as error:
        raise from_validation(error) from None


NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "tool_choice.allowed_tools": "tool_choice",
    "tool_choice.function": "tool_choice",
}
"""What fields of a chat are called here."""


def _format(wanted: TextFormat | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type != "json_schema":
        return None if wanted is None else {"type": wanted.type}
    described = {
        "name": wanted.name or "answer",
        "description": wanted.description,
        "schema": wanted.json_schema,
        "strict": wanted.strict,
    }
    given = {name: value for name, value in described.items() if value is not None}
    return {"type": "json_schema", "json_schema": given}


def _tool(tool: FunctionTool) -> dict[str, Any]:
    function = tool.model_dump(exclude={"type"}, exclude_none=True)
    return {"type": "function", "function": function}


def _choice(body: ResponseRequest) -> Any:
    """A choice that names functions does so one level further up than in a chat."""
    choice = body.tool_choice
    if not isinstance(choice, dict):
        return choice
    kind, tools = choice.get("type"), choice.get("tools")
    if kind == "function" and isinstance(choice.get("name"), str):
        return _function(choice)
    if kind == "allowed_tools" and isinstance(tools, list):
        chosen = [_function(one) if isinstance(one, dict) else one for one in tools]
        return {
            "type": kind,
            "allowed_tools": {"mode": choice.get("mode", "auto"), "tools": chosen},
        }
    raise BadRequest(
        "tool_choice must be none, auto, required, a function, or allowed_tools",
        param="tool_choice",
    )


def _function(chosen: dict[str, Any]) -> dict[str, Any]:
    return {"type": chosen.get("type"), "function": {"name": chosen.get("name")}}


def settings(
    body: ResponseRequest, sampling: SamplingParams, *, model_name: str, kept: bool
) -> dict[str, Any]:
    """What a response says of how it was made."""
    text = body.text.model_dump(by_alias=True, exclude_none=True) if body.text else {}
    return {
        "model": model_name,
        "previous_response_id": body.previous_response_id,
        "instructions": body.instructions,
        "tools": [_shown(tool) for tool in body.tools or ()],
        "tool_choice": _shown_choice(body.tool_choice),
        "truncation": "disabled",
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "text": {"format": {"type": "text"}, **text},
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "top_logprobs": body.top_logprobs or 0,
        "temperature": sampling.temperature,
        "reasoning": {"effort": body.reasoning.effort, "summary": None} if body.reasoning else None,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "store": kept,
        "background": False,
        "service_tier": "default",
        "metadata": body.metadata or {},
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
    }


def _shown_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return {"mode": "auto", **choice}
    return choice or "auto"


def _shown(tool: FunctionTool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
