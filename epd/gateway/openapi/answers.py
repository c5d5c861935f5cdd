"""The forms of answers, for those who read them; answers are written by shapes and routes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shown(BaseModel):
    """An object that may say more than this."""

    model_config = ConfigDict(extra="allow")


class ErrorDetail(Shown):
    """What went wrong; `param` names the field that a client can change."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Shown):
    """Every answer that is none."""

    error: ErrorDetail


class Usage(Shown):
    """Tokens of the prompt and of all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class Message(Shown):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None


class ChatChoice(Shown):
    """One of `n`."""

    index: int
    message: Message
    logprobs: dict[str, Any] | None
    finish_reason: str


class ChatCompletion(Shown):
    """The answer to a chat that is not streamed."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextLogprobs(Shown):
    """One entry per token in each of the lists."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Shown):
    """One of `n` of a prompt; those of the next prompt are counted on."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str


class TextCompletion(Shown):
    """The answer to prompts that is not streamed."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class Tokenized(Shown):
    """Token ids; `max_model_len` counts a prompt and its answer."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(Shown):
    """The text of token ids."""

    prompt: str


class Model(Shown):
    """What is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    items: dict[str, int]


class Models(Shown):
    """The one model that is served."""

    object: Literal["list"]
    data: list[Model]


class Status(Shown):
    """A word."""

    status: str


class Version(Shown):
    """Of the server."""

    version: str


class Cluster(Shown):
    """Every worker and what it holds."""

    workers: list[dict[str, Any]]


class Recent(Shown):
    """The paths of requests that have ended."""

    requests: list[dict[str, Any]]


class Standing(Shown):
    """Where a request waits."""

    id: str


class Draining(Shown):
    """A worker that takes nothing new."""

    worker: str
    state: Literal["draining"]


class ResponseUsage(Shown):
    """Tokens of the input and of the output."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseItem(Shown):
    """What the model says, thinks or asks for."""

    type: Literal["message", "reasoning", "function_call"]
    id: str
    status: Literal["in_progress", "completed", "incomplete"]


class ResponseError(Shown):
    """Why a response failed."""

    code: str
    message: str


class Response(Shown):
    """A response of Open Responses."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    incomplete_details: dict[str, str] | None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[ResponseItem]
    error: ResponseError | None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    truncation: Literal["auto", "disabled"]
    parallel_tool_calls: bool
    text: dict[str, Any]
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float
    reasoning: dict[str, str | None] | None
    usage: ResponseUsage | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, str]
    safety_identifier: str | None
    prompt_cache_key: str | None


class Forgotten(Shown):
    """A response that is kept no longer."""

    id: str
    object: Literal["response"]
    deleted: bool


class TranscriptionForm(BaseModel):
    """A file, and how its text is wanted."""

    model_config = ConfigDict(extra="forbid")

    file: bytes
    model: str
    response_format: Literal["json", "text"] = "json"
    temperature: Literal["0"] = "0"
    max_completion_tokens: int | None = Field(None, ge=1)


class Transcribed(Shown):
    """The text of all windows, and the tokens of all of them."""

    text: str
    usage: dict[str, int | str]
