"""One request and its streamed answer: what is sent, and what of the answer is kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from epd.bench.http import Client
from epd.bench.records import Record
from epd.bench.responses import BadResponse, Events

DONE = b"[DONE]"
INTERRUPTED = "interrupted"
SHOWN = 300
"""Characters of a server's words in an error."""

TOLD_KINDS = ("image", "video", "audio", "time_series")
"""Of items whose tokens `epd` tells apart in its usage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request as bytes, ready to be sent: pieces, some of which other requests share."""

    path: str
    body: Sequence[bytes]
    kind: str = "text"
    asked_tokens: int | None = None
    due_s: float = 0.0

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.body))


class Asker:
    """Asks one server; times are seconds since `began`."""

    def __init__(self, client: Client, began: float, timeout_s: float) -> None:
        self._client = client
        self._began = began
        self._timeout_s = timeout_s

    async def ask(self, prepared: Prepared, record: Record) -> None:
        """Fill the record. Whatever goes wrong is its error; nothing is raised but a cancel."""
        record.sent = time.perf_counter() - self._began
        answer = Answer(record, self._began)
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.post(prepared.path, prepared.body, answer.hear)
            answer.end(response.status)
        except TimeoutError:
            record.error = f"timeout: no whole answer within {self._timeout_s:g} s"
        except OSError as error:
            record.error = f"connection: {error}"
        except BadResponse as error:
            record.error = f"broken answer: {error}"
        except asyncio.CancelledError:
            record.error = INTERRUPTED
            raise
        finally:
            if record.error or not record.ended:
                record.ended = time.perf_counter() - self._began

    def close(self) -> None:
        """No more requests."""
        self._client.close()


class Answer:
    """Reads an answer into a record as it comes, streamed or in one piece."""

    def __init__(self, record: Record, began: float) -> None:
        self._record = record
        self._began = began
        self._events = Events()
        self._body: list[bytes] = []
        self._ended = False

    def hear(self, now: float, data: bytes) -> None:
        """Bytes of the body came at `now`."""
        at = now - self._began
        if not self._record.arrivals:
            self._body.append(data)
        for event in self._events.feed(data):
            if event == DONE:
                self._ended = True
                continue
            self._record.ended = at
            try:
                found = json.loads(event.decode())
            except ValueError as error:
                raise BadResponse(f"an event that is no JSON: {event[:40]!r}") from error
            hear_event(self._record, found, at)
            self._ended = self._ended or _is_last(found)

    def end(self, status: int) -> None:
        """The answer is whole."""
        record = self._record
        if status != 200:
            said = b"".join(self._body).decode("utf-8", "replace").strip()
            record.error = f"HTTP {status}: {_message(said)}"
        elif not record.error and not self._ended:
            record.error = "broken answer: the stream ended without [DONE]"


def _is_last(event: dict[str, Any]) -> bool:
    """`transformers serve` sends no [DONE]: its last event has the usage and why it ended."""
    reasons = [choice.get("finish_reason") for choice in event.get("choices") or ()]
    return bool(event.get("usage") and reasons and all(reasons))


def hear_event(record: Record, event: dict[str, Any], at: float) -> None:
    """An event of a chat or of a text completion.

    A server that shows no token ids is taken to send one token per event with text, as the tools
    of sglang and vLLM do.
    """
    if event.get("error"):
        record.error = f"error in the stream: {_message(json.dumps(event))}"
    if usage := event.get("usage"):
        hear_usage(record, usage)
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        text = choice.get("text") or delta.get("content") or ""
        ids = choice.get("token_ids")
        said = text or _other_text(delta)
        num = len(ids) if ids is not None else int(bool(said))
        record.text += text
        if num:
            record.arrivals.append((at, num))


def hear_usage(record: Record, usage: dict[str, Any]) -> None:
    """Counts, and what `epd` adds to them."""
    record.prompt_tokens = usage.get("prompt_tokens") or 0
    record.completion_tokens = usage.get("completion_tokens") or 0
    details = usage.get("prompt_tokens_details") or {}
    record.cached_tokens = details.get("cached_tokens") or 0
    record.item_tokens = {
        kind: details[f"{kind}_tokens"] for kind in TOLD_KINDS if details.get(f"{kind}_tokens")
    }
    record.path = usage.get("epd") or record.path


def _other_text(delta: dict[str, Any]) -> Any:
    """Tokens that are no content."""
    return delta.get("reasoning_content") or delta.get("reasoning") or delta.get("tool_calls")


def _message(said: str) -> str:
    """The words of an error object, or as much of what was said as fits on a line."""
    with suppress(ValueError, KeyError, TypeError):  # what is no error object is shown as it is
        error = json.loads(said)["error"]
        said = str(error["message"] if isinstance(error, dict) else error)
    return " ".join(said.split())[:SHOWN]
