"""A response, and the events of one that is streamed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from epd.errors import EpdError
from epd.gateway.completion import Completion, Piece
from epd.gateway.errors import error_body
from epd.gateway.logprobs import of_answer
from epd.gateway.responses.schemas import ResponseRequest
from epd.gateway.responses.transcript import Transcript
from epd.gateway.shapes.shape import Event, Shape
from epd.prompt import TokenTexts
from epd.types import FinishReason

Resource = dict[str, Any]


class ResponseShape(Shape):
    """Streamed or not, the items are made in one way. `keep`, if it is
    set, is told of a response that has ended.

    `gateway` is a part of the id, so that others know whom to ask for it. `settings`: what a
    response says of how it was made, known once the request has been read.
    """

    broken_off = Shape.closing

    def __init__(
        self,
        body: ResponseRequest,
        *,
        gateway: str,
        texts: TokenTexts,
    ) -> None:
        self._body = body
        self.settings: Resource = {}
        self.keep: Callable[[Resource], None] | None = None
        self._gateway = gateway
        self._texts = texts
        self._created = int(time.time())
        self._sequence = -1
        self._id = ""
        self._transcript = Transcript("")
        self._reason: FinishReason | None = None

    async def begun(self, completion: Completion) -> None:
        """Its id is made of the cluster's own."""
        self._begin(completion)

    def whole(self, completion: Completion, choices: Sequence[Piece]) -> Resource:
        """The response when it has ended."""
        return self._ended(completion)

    def seen(self, completion: Completion, piece: Piece) -> None:
        """What would be an event in a stream becomes part of the items."""
        self._begin(completion)
        list(self._of_piece(completion, piece))

    def piece(self, completion: Completion, piece: Piece) -> Iterable[Event]:
        """What it changes in the items."""
        if self._sequence < 0:
            resource = self._resource("in_progress")
            yield self._event({"type": "response.created", "response": resource})
            yield self._event({"type": "response.in_progress", "response": resource})
        for data in self._of_piece(completion, piece):
            yield self._event(data)

    def ended(self, completion: Completion) -> Iterable[Event]:
        """The response as a whole."""
        resource = self._ended(completion)
        return [self._event({"type": f"response.{resource['status']}", "response": resource})]

    def failed(self, error: EpdError) -> Iterable[Event]:
        """The error, and the response as far as it came."""
        said = error_body(error)["error"]
        yield self._event({"type": "error", "error": said})
        why = {"code": said["code"], "message": said["message"]}
        resource = {**self._resource("failed"), "error": why}
        yield self._event({"type": "response.failed", "response": resource})

    def _begin(self, completion: Completion) -> None:
        if not self._id:
            request_id = completion.call.request_id
            self._id = f"resp_{request_id}" + (f"_{self._gateway}" if self._gateway else "")
            self._transcript = Transcript(request_id)

    def _of_piece(self, completion: Completion, piece: Piece) -> Iterable[dict[str, Any]]:
        logprobs: list[Any] = []
        if self._body.wants_logprobs:
            said = of_answer(self._texts, piece.token_ids, piece.logprobs, shows_ids=False)
            logprobs = [_with_bytes(entry) for entry in said["content"]]
        yield from self._transcript.reasoning(piece.reasoning)
        yield from self._transcript.text(piece.text, logprobs)
        for call in piece.calls:
            yield from self._transcript.call(call, completion.call_id(piece.choice, call.index))
        if piece.finish_reason is not None:
            self._reason = piece.finish_reason
            complete = piece.finish_reason is not FinishReason.LENGTH
            yield from self._transcript.finish(complete=complete)

    def _ended(self, completion: Completion) -> Resource:
        cut = self._reason is FinishReason.LENGTH
        resource = {
            **self._resource("incomplete" if cut else "completed"),
            "completed_at": None if cut else int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": _usage(completion.usage()),
        }
        if self.keep is not None:
            self.keep(resource)
        return resource

    def _resource(self, status: str) -> Resource:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": None,
            "status": status,
            "incomplete_details": None,
            "error": None,
            "output": list(self._transcript.items),
            "usage": None,
            **self.settings,
        }

    def _event(self, data: dict[str, Any]) -> Event:
        self._sequence += 1
        name = data["type"]
        return Event({"type": name, "sequence_number": self._sequence, **data}, name=name)


def _usage(chat: dict[str, Any]) -> dict[str, Any]:
    """A chat's usage under the names that it has here."""
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": chat["prompt_tokens_details"],
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": chat["completion_tokens_details"],
        "total_tokens": chat["total_tokens"],
        **({"epd": chat["epd"]} if "epd" in chat else {}),
    }


def _with_bytes(entry: dict[str, Any]) -> dict[str, Any]:
    """Where nobody knows a token's bytes, a list without any is said."""
    shown = {**entry, "bytes": list(entry["bytes"] or ())}
    if "top_logprobs" in entry:
        shown["top_logprobs"] = [_with_bytes(likely) for likely in entry["top_logprobs"]]
    return shown
