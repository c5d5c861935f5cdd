"""Everything between a request's bytes and a CallSpec: limits, validation, template, tokens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from epd.config import GatewayConfig, MediaConfig
from epd.errors import BadRequest, NotFound, Overloaded, TooLarge
from epd.gateway.accounts import Account, tenant_salt
from epd.gateway.bodies import read_chunks
from epd.gateway.errors import from_validation
from epd.gateway.files import FileReader, FilesWait
from epd.gateway.forms import Forms
from epd.gateway.grammars import GrammarDesk
from epd.gateway.guard import account_of, tenant_of
from epd.gateway.items import ItemReader
from epd.gateway.sampling import check_defaults, resolve
from epd.gateway.schemas import ChatRequest
from epd.gateway.service import CallSpec
from epd.gateway.shapes import ChatShape, Shape
from epd.models.spec import Checkpoint
from epd.prompt import Detokenizer, Draft, Message, PromptBuilder, Rendering
from epd.prompt.calls import PLAIN, AnswerForm

logger = logging.getLogger(__name__)

AUTO = "auto"
"""A name that means whatever model is served."""

_SHORT_BYTES = 4096
"""Bodies up to this size are parsed on the loop: to change threads costs more than that does."""

_THREADS = 2  # tokenising holds no lock for long; more would fight with the workers on one host


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request of any API that is ready to be submitted, and the form of its answer.

    `form` says what its text may contain. `grammar_field` is what `sampling.grammar` was made of,
    for errors. `stops` end a choice where they occur in its text, and are part of it with
    `shows_stop`, as the token that stops is; special tokens are with `shows_special`. `shows_path`:
    its usage is to tell what was done for it. `more` are further prompts of the request, whose
    choices are counted on. `account` pays for it.
    """

    spec: CallSpec
    shape: Shape
    more: tuple[CallSpec, ...] = ()
    stream: bool = False
    form: AnswerForm = PLAIN
    grammar_field: str = ""
    stops: tuple[str, ...] = ()
    shows_stop: bool = False
    shows_special: bool = False
    shows_path: bool = False
    account: Account | None = None

    @property
    def specs(self) -> tuple[CallSpec, ...]:
        """Of all its prompts."""
        return (self.spec, *self.more)


T = TypeVar("T")
P = TypeVar("P", bound=Prepared)
B = TypeVar("B", bound=BaseModel)

Parse = Callable[[bytes, str], T]
"""From a body and its tenant to what is to be done. EpdError says what is wrong with it."""

Before = Callable[[bytes, str], Awaitable[None]]
"""What has to be done on the loop before a body can be parsed."""

Build = Callable[[list[Message], Rendering], Draft]
"""From a chat whose items are known to a prompt."""


class Front:
    """Holds what requests are checked against. Long bodies are parsed on its own threads.

    Bodies in its hands are bounded in number and in bytes; beyond that clients get 429.
    """

    def __init__(self, checkpoint: Checkpoint, config: GatewayConfig, media: MediaConfig) -> None:
        self._checkpoint = checkpoint
        self._config = config
        self.builder = PromptBuilder(
            checkpoint,
            config.chat_template,
            template_timeout_s=config.request_chat_template_timeout_s,
        )
        self._forms = Forms(self.builder, config)
        self._files = FileReader(media)
        self._items = ItemReader(checkpoint.spec, config, media)
        self._grammars = GrammarDesk(checkpoint, config)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="prompt")
        # A template that a request brings is waited for.
        self._short_bytes = 0 if config.trust_request_chat_template else _SHORT_BYTES
        self._num_held = 0
        self._bytes_held = 0
        if unfollowed := check_defaults(checkpoint):
            logger.warning(
                "generation_config.json sets %s, which answers do not follow", ", ".join(unfollowed)
            )

    def close(self) -> None:
        """Frees the threads; work that has begun goes to its end."""
        self._files.close()
        self._grammars.close()
        self.builder.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def prepare(self, request: Request, parse: Parse[P], before: Before | None = None) -> P:
        """Reads the body and parses it, on a thread if it is long. EpdError: it is wrong."""
        prepared = _with_headers(await self.read(request, parse, before), request)
        await self._grammars.check(prepared.spec.sampling, prepared.grammar_field)
        return _of_asker(prepared, account_of(request.scope))

    async def read(self, request: Request, parse: Parse[T], before: Before | None = None) -> T:
        """Any body. `before` is waited for when the body is there, and never on a thread."""
        if self._num_held >= self._config.max_waiting:
            raise Overloaded("too many requests are waiting to be read")
        size = 0
        chunks: list[bytes] = []

        def take(chunk: bytes) -> None:
            nonlocal size
            size += len(chunk)
            self._bytes_held += len(chunk)
            self._check_size(size, held=self._bytes_held - size)
            chunks.append(chunk)

        self._num_held += 1
        try:
            self._check_size(_announced(request), held=self._bytes_held)
            await read_chunks(request, self._config.body_timeout_s, take)
            raw, tenant = b"".join(chunks), tenant_of(request.scope)
            if before is not None:
                await before(raw, tenant)
            try:
                if before is None and size <= self._short_bytes:
                    return parse(raw, tenant)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, parse, raw, tenant)
            except FilesWait:
                return await self._files.read(parse, raw, tenant)
        finally:
            self._num_held -= 1
            self._bytes_held -= size

    @property
    def config(self) -> GatewayConfig:
        """The operator's word on who may ask, and for how much."""
        return self._config

    @property
    def folder(self) -> Path:
        """Of the checkpoint."""
        return self._checkpoint.path

    def detokenizer(self, prepared: Prepared) -> Detokenizer:
        """For one choice of the answer to this request."""
        return self.builder.detokenizer(
            prepared.stops,
            min_tokens=prepared.spec.sampling.min_tokens,
            shows_special=prepared.shows_special,
            shows_stop=prepared.shows_stop,
        )

    @property
    def other_names(self) -> tuple[str, ...]:
        """What clients may call the model beside its own name."""
        return self._config.other_model_names

    @property
    def takes(self) -> dict[str, int]:
        """Most items of each kind in one request; kinds that are not taken are left out."""
        return self._items.takes()

    @property
    def max_context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._checkpoint.max_context

    def check_model(self, name: str, *, model_name: str) -> None:
        """NotFound unless a request means the model that is served; "auto" does."""
        if name not in (model_name, AUTO, *self.other_names):
            raise NotFound(
                f"there is no model {name[:200]!r} here, only {model_name!r}",
                param="model",
                code="model_not_found",
            )

    def _check_size(self, size: int, *, held: int) -> None:
        if size > self._config.max_body_bytes:
            raise TooLarge(f"the body is larger than {self._config.max_body_bytes} bytes")
        if held + size > max(self._config.media_budget_bytes, self._config.max_body_bytes):
            raise Overloaded("too many bytes of requests are waiting")

    def chat(self, raw: bytes, tenant: str, *, model_name: str) -> Prepared:
        """The body of a chat completion."""
        body = read_body(ChatRequest, raw)
        shape = ChatShape(body, model_name=model_name, texts=self.builder.token_texts)
        return self.of_chat(body, tenant, shape, model_name=model_name)

    def of_chat(self, body: ChatRequest, tenant: str, shape: Shape, *, model_name: str) -> Prepared:
        """A request whose prompt is what the model's template makes of a chat."""
        build = self.builder.build
        return self.prepared(body, tenant, shape, build, model_name=model_name, raw=False)

    def prepared(
        self,
        body: ChatRequest,
        tenant: str,
        shape: Shape,
        build: Build,
        *,
        model_name: str,
        raw: bool,
    ) -> Prepared:
        """A request of any API, in the words of a chat; `build` makes the prompt of its messages.

        A `raw` answer is text and nothing else, whatever the model's template means by it. What the
        request names is remembered once nothing can be wrong with it any more.
        """
        body.check()
        self.check_model(body.model, model_name=model_name)
        if body.chat_template is not None and not self._config.trust_request_chat_template:
            raise BadRequest(
                "chat_template: this server takes no template of a request's own "
                "(--trust-request-chat-template)",
                param="chat_template",
                code="unsupported_field",
            )
        body = self._files.opened(body)
        offer = body.offer
        read = self._items.read(body, tenant)
        draft = build(read.messages, body.rendering)
        template = self.builder.template_of(body.rendering)
        parallel = body.parallel_tool_calls is not False
        form = PLAIN if raw else self._forms.of(draft, template, offer, parallel=parallel)
        sampling = resolve(body, self._checkpoint)
        grammar = self._forms.grammar(offer, form, sampling.grammar)
        spec = CallSpec(
            draft=draft,
            sampling=replace(sampling, grammar=grammar),
            deadline_s=self._config.request_timeout_s,
            cache_salt=body.cache_salt or "",
            priority=body.priority or 0,
            tells_prompt=bool(body.return_token_ids),
        )
        self._items.known.put(read.named)
        return Prepared(
            spec=spec,
            shape=shape,
            stream=bool(body.stream),
            form=form,
            grammar_field=body.grammar[1] if body.grammar[0] and not offer.must_call else "tools",
            stops=body.stops,
            shows_stop=bool(body.include_stop_str_in_output),
            shows_special=body.skip_special_tokens is False,
            shows_path=bool(body.return_path),
        )


def read_body(kind: type[B], raw: bytes) -> B:
    """A body of this kind. BadRequest names the field at fault."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise from_validation(error) from None


def _with_headers(prepared: P, request: Request) -> P:
    """What a client says outside the body."""
    asked = request.headers.get("x-epd-path", "") == "1"
    traceparent = request.headers.get("traceparent", "")

    def headed(spec: CallSpec) -> CallSpec:
        return replace(spec, traceparent=traceparent)

    return replace(_each(prepared, headed), shows_path=asked or prepared.shows_path)


def _of_asker(prepared: P, account: Account | None) -> P:
    """Whoever asks shares caches with its own tenant only."""
    if account is None:
        return prepared

    def salted(spec: CallSpec) -> CallSpec:
        return replace(spec, cache_salt=tenant_salt(account.tenant, spec.cache_salt))

    return replace(_each(prepared, salted), account=account)


def _each(prepared: P, change: Callable[[CallSpec], CallSpec]) -> P:
    """The same with this change to all of its prompts."""
    return replace(
        prepared, spec=change(prepared.spec), more=tuple(change(one) for one in prepared.more)
    )


def _announced(request: Request) -> int:
    """Content-Length, or 0 where the client does not say: then the bytes are counted."""
    value = request.headers.get("content-length", "0")
    if not value.isascii() or not value.isdigit():
        raise BadRequest("Content-Length is not a number")
    return int(value)
