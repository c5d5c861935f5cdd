"""What the Open Responses specification wants of responses and of their events, as models.

Written after its OpenAPI document (version 2026-04-24). As in the specification's own compliance
test, types are strict and what else an object says is passed over.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Status = Literal["in_progress", "completed", "incomplete"]


class Object(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class TopLogProb(Object):
    token: str
    logprob: float
    bytes: list[int]


class LogProb(TopLogProb):
    top_logprobs: list[TopLogProb]


class OutputText(Object):
    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]]
    logprobs: list[LogProb] = []


class OtherText(Object):
    type: Literal["input_text", "text", "summary_text", "reasoning_text"]
    text: str


class Refusal(Object):
    type: Literal["refusal"]
    refusal: str


Part = Annotated[OutputText | OtherText | Refusal, Field(discriminator="type")]


class Message(Object):
    type: Literal["message"]
    id: str
    status: Status
    role: Literal["user", "assistant", "system", "developer"]
    content: list[Part]


class FunctionCall(Object):
    type: Literal["function_call"]
    id: str
    call_id: Annotated[str, Field(min_length=1, max_length=64)]
    name: str
    arguments: str
    status: Status


class Reasoning(Object):
    type: Literal["reasoning"]
    id: str
    content: list[Part] = []
    summary: list[Part]


Item = Annotated[Message | FunctionCall | Reasoning, Field(discriminator="type")]


class FunctionTool(Object):
    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class FunctionChoice(Object):
    type: Literal["function"]
    name: str


class AllowedChoice(Object):
    type: Literal["allowed_tools"]
    tools: list[FunctionChoice]
    mode: Literal["none", "auto", "required"]


class Format(Object):
    type: Literal["text", "json_object", "json_schema"]


class Text(Object):
    format: Format


class Cached(Object):
    cached_tokens: int


class Reasoned(Object):
    reasoning_tokens: int


class Usage(Object):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: Cached
    output_tokens_details: Reasoned


class Why(Object):
    reason: str


class Fault(Object):
    code: str
    message: str


class Effort(Object):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None
    summary: str | None


class Response(Object):
    """All of these fields have to be there."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: str
    incomplete_details: Why | None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[Item]
    error: Fault | None
    tools: list[FunctionTool]
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | AllowedChoice
    truncation: Literal["auto", "disabled"]
    parallel_tool_calls: bool
    text: Text
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float
    reasoning: Effort | None
    usage: Usage | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, str]
    safety_identifier: str | None
    prompt_cache_key: str | None


class Event(Object):
    sequence_number: int


class OfResponse(Event):
    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.failed",
        "response.incomplete",
    ]
    response: Response


class OfItem(Event):
    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: Item | None


class InItem(Event):
    item_id: str
    output_index: int


class OfPart(InItem):
    type: Literal["response.content_part.added", "response.content_part.done"]
    content_index: int
    part: Part


class Delta(InItem):
    type: Literal["response.output_text.delta", "response.reasoning.delta"]
    content_index: int
    delta: str
    logprobs: list[LogProb] = []


class Done(InItem):
    type: Literal["response.output_text.done", "response.reasoning.done"]
    content_index: int
    text: str
    logprobs: list[LogProb] = []


class ArgumentsDelta(InItem):
    type: Literal["response.function_call_arguments.delta"]
    delta: str


class ArgumentsDone(InItem):
    type: Literal["response.function_call_arguments.done"]
    arguments: str


class ErrorPayload(Object):
    type: str
    code: str | None
    message: str
    param: str | None


class ErrorEvent(Event):
    type: Literal["error"]
    error: ErrorPayload


AnyEvent: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        OfResponse | OfItem | OfPart | Delta | Done | ArgumentsDelta | ArgumentsDone | ErrorEvent,
        Field(discriminator="type"),
    ]
)
"""One of those that a server of functions and words sends."""
