"""Everything between a request's bytes and a CallSpec: limits, validation, template, tokens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from epd.config import GatewayConfig, MediaConfig
from epd.errors import BadRequest, Cancelled, NotFound, Overloaded, TooLarge
from epd.gateway.errors import from_validation
from epd.gateway.items import ItemReader
from epd.gateway.sampling import check_defaults, resolve
from epd.gateway.schemas import ChatRequest
from epd.gateway.service import CallSpec
from epd.gateway.shapes import ChatShape, Shape
from epd.models.spec import Checkpoint
from epd.prompt import Detokenizer, PromptBuilder

logger = logging.getLogger(__name__)

_THREADS = 2  # tokenising holds no lock for long; more would fight with the workers on one host


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request of any API that is ready to be submitted, and the form of its answer.

    `stops` end a choice where they occur in its text. `shows_path`: its usage is to tell what was
    done for it.
    """

    spec: CallSpec
    shape: Shape
    stream: bool = False
    stops: tuple[str, ...] = ()
    shows_path: bool = False


Parse = Callable[[bytes], Prepared]
"""From a body to what is to be done: pure computation. EpdError says what is wrong with it."""


class Front:
    """Holds what requests are checked against. Parsing and tokenising run on its own threads.

    Bodies in its hands are bounded in number and in bytes; beyond that clients get 429.
    """

    def __init__(self, checkpoint: Checkpoint, config: GatewayConfig, media: MediaConfig) -> None:
        self._checkpoint = checkpoint
        self._config = config
        self._builder = PromptBuilder(checkpoint)
        self._items = ItemReader(checkpoint.spec, config, media)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="prompt")
        self._num_held = 0
        self._bytes_held = 0
        if unfollowed := check_defaults(checkpoint):
            logger.warning(
                "generation_config.json sets %s, which answers do not follow", ", ".join(unfollowed)
            )

    def close(self) -> None:
        """Frees the threads; work that has begun goes to its end."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def prepare(self, request: Request, parse: Parse) -> Prepared:
        """Reads the body and parses it, on a thread of ours. EpdError says what is wrong."""
        if self._num_held >= self._config.max_waiting:
            raise Overloaded("too many requests are waiting to be read")
        size = 0
        self._num_held += 1
        try:
            chunks: list[bytes] = []
            self._check_size(_announced(request), held=self._bytes_held)
            try:
                async for chunk in request.stream():
                    size += len(chunk)
                    self._bytes_held += len(chunk)
                    self._check_size(size, held=self._bytes_held - size)
                    chunks.append(chunk)
            except ClientDisconnect:
                raise Cancelled("the client left while sending") from None
            prepared = await asyncio.get_running_loop().run_in_executor(
                self._threads, parse, b"".join(chunks)
            )
            return _with_headers(prepared, request)
        finally:
            self._num_held -= 1
            self._bytes_held -= size

    @property
    def admin_key(self) -> str:
        """What an operator has to show; empty: only this machine's may give orders."""
        return self._config.admin_key

    def detokenizer(self, prepared: Prepared) -> Detokenizer:
        """For one choice of the answer to this request."""
        sampling = prepared.spec.sampling
        return self._builder.detokenizer(prepared.stops, min_tokens=sampling.min_tokens)

    def _check_size(self, size: int, *, held: int) -> None:
        if size > self._config.max_body_bytes:
            raise TooLarge(f"the body is larger than {self._config.max_body_bytes} bytes")
        if held + size > max(self._config.media_budget_bytes, self._config.max_body_bytes):
            raise Overloaded("too many bytes of requests are waiting")

    def chat(self, raw: bytes, *, model_name: str) -> Prepared:
        """The body of a chat completion."""
        try:
            body = ChatRequest.model_validate_json(raw)
        except ValidationError as error:
            raise from_validation(error) from None
        body.check()
        if body.model != model_name:
            raise NotFound(
                f"there is no model {body.model[:200]!r} here, only {model_name!r}",
                param="model",
                code="model_not_found",
            )
        read = self._items.read(body)
        spec = CallSpec(
            draft=self._builder.build(read.messages),
            sampling=resolve(body, self._checkpoint),
            deadline_s=self._config.request_timeout_s,
            cache_salt=body.cache_salt or "",
        )
        self._items.known.put(read.named)
        return Prepared(
            spec=spec,
            shape=ChatShape(body, model_name=model_name, texts=self._builder.token_texts),
            stream=bool(body.stream),
            stops=body.stops,
            shows_path=bool(body.return_path),
        )


def _with_headers(prepared: Prepared, request: Request) -> Prepared:
    """What a client says outside the body."""
    asked = request.headers.get("x-epd-path", "") == "1"
    traceparent = request.headers.get("traceparent", "")
    return replace(
        prepared,
        spec=replace(prepared.spec, traceparent=traceparent),
        shows_path=asked or prepared.shows_path,
    )


def _announced(request: Request) -> int:
    """Content-Length, or 0 where the client does not say: then the bytes are counted."""
    value = request.headers.get("content-length", "0")
    if not value.isascii() or not value.isdigit():
        raise BadRequest("Content-Length is not a number")
    return int(value)
