"""What each route takes and answers, beside what its function says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from epd.gateway.completions import CompletionRequest
from epd.gateway.openapi import answers
from epd.gateway.operator import DrainOrder
from epd.gateway.responses.schemas import ResponseRequest
from epd.gateway.schemas import ChatRequest
from epd.gateway.tokenizing import DetokenizeRequest, TokenizeRequest

JSON, EVENTS, TEXT, PAGE = "application/json", "text/event-stream", "text/plain", "text/html"
FORM = "multipart/form-data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    `answer` is a success of the kind `kind`; `streams`: or events, if the client wants them;
    `texts`: or plain text. What it takes is JSON, or a `form` with a file.
    `others` have answers of their own under another status.
    """

    answer: type[BaseModel] | None = None
    takes: type[BaseModel] | None = None
    kind: str = JSON
    streams: bool = False
    texts: bool = False
    form: bool = False
    query: tuple[str, ...] = ()
    others: Mapping[int, type[BaseModel]] = field(default_factory=dict)


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/chat/completions"): Operation(
        takes=ChatRequest, answer=answers.ChatCompletion, streams=True
    ),
    ("POST", "/v1/completions"): Operation(
        takes=CompletionRequest, answer=answers.TextCompletion, streams=True
    ),
    ("POST", "/v1/responses"): Operation(
        takes=ResponseRequest, answer=answers.Response, streams=True
    ),
    ("GET", "/v1/responses/{response_id}"): Operation(
        answer=answers.Response, query=("cache_salt",)
    ),
    ("DELETE", "/v1/responses/{response_id}"): Operation(
        answer=answers.Forgotten, query=("cache_salt",)
    ),
    ("POST", "/v1/audio/transcriptions"): Operation(
        takes=answers.TranscriptionForm, answer=answers.Transcribed, form=True, texts=True
    ),
    ("POST", "/tokenize"): Operation(takes=TokenizeRequest, answer=answers.Tokenized),
    ("POST", "/detokenize"): Operation(takes=DetokenizeRequest, answer=answers.Detokenized),
    ("GET", "/v1/models"): Operation(answer=answers.Models),
    ("GET", "/v1/models/{name}"): Operation(answer=answers.Model),
    ("GET", "/health"): Operation(answer=answers.Status),
    ("GET", "/ready"): Operation(answer=answers.Status, others={503: answers.Status}),
    ("GET", "/version"): Operation(answer=answers.Version),
    ("GET", "/metrics"): Operation(kind=TEXT),
    ("GET", "/cluster"): Operation(answer=answers.Cluster),
    ("GET", "/cluster/requests"): Operation(answer=answers.Recent),
    ("GET", "/cluster/requests/{request_id}"): Operation(answer=answers.Standing),
    ("POST", "/cluster/drain"): Operation(takes=DrainOrder, answer=answers.Draining),
    ("GET", "/openapi.json"): Operation(answer=answers.Shown),
    ("GET", "/docs"): Operation(kind=PAGE),
}
