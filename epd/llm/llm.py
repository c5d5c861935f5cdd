"""`LLM`: prompts in, texts out, without a word of HTTP.

It starts the cluster that `epd serve` starts and asks it what any client would ask, so that the
answers are those over HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from epd.errors import BadRequest
from epd.llm.chats import Chat, as_chats, read_chat
from epd.llm.client import Bar, Body, Client
from epd.llm.outputs import RequestOutput, read_output
from epd.llm.params import DEFAULT_MAX_TOKENS, SamplingParams
from epd.llm.prompts import Prompt, read_prompts, with_frames
from epd.llm.serving import serve

PATIENT = {"gateway.request_timeout_s": 86400.0, "gateway.max_wait_s": 86400.0}
"""Nobody waits at the other end: a batch takes as long as it takes."""

Params = SamplingParams | Sequence[SamplingParams | None] | None


class LLM:
    """One model, loaded once, that answers batches. A context manager; thread-safe.

    `topology` is as in `epd serve`; what else may be said is said in `epd.serve`. Ready-made
    embeddings are taken unless `enable_mm_embeds=False`. Its server answers to `api_key` alone,
    drawn unless given, so that it is not that of all users of the machine.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        topology: str = "EPD",
        api_key: str = "",
        config: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        enable_mm_embeds: bool = True,
        **options: Any,
    ) -> None:
        self.api_key = api_key or secrets.token_urlsafe(32)
        self.server = serve(
            model,
            topology=topology,
            api_key=self.api_key,
            config=config,
            settings={**PATIENT, **(settings or {})},
            enable_mm_embeds=enable_mm_embeds,
            **options,
        )
        try:
            self._model = self.server.model
            self._client = Client(self.server.url, self.api_key)
        except BaseException:
            self.server.stop()
            raise

    def generate(
        self, prompts: Any, sampling_params: Params = None, *, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        """Continue prompts as they are written: no chat template, special tokens are meant.

        A prompt is text, token ids, or an object {"prompt", "multi_modal_data": {"image": ...}}
        with as many placeholders of each modality as it has items. Outputs are in order.
        """
        read = read_prompts(prompts)
        each = _each(sampling_params, len(read))
        bodies = [self._completion(*pair) for pair in zip(read, each, strict=True)]
        found = self._client.post_all("/v1/completions", bodies, _bar(len(bodies), use_tqdm))
        return [read_output(body, prompt.text) for body, prompt in zip(found, read, strict=True)]

    def chat(
        self,
        messages: Any,
        sampling_params: Params = None,
        use_tqdm: bool = True,
        **fields: Any,
    ) -> list[RequestOutput]:
        """Answer a chat, or each of a list of chats.

        Parts are those of the HTTP API, or hold what is in memory: {"type": "image", "image":
        picture}. `fields` are further ones of the request, such as `tools` or
        `chat_template_kwargs`.
        """
        chats = as_chats(messages)
        each = _each(sampling_params, len(chats))
        bodies = [
            self._chat(chat, params, fields) for chat, params in zip(chats, each, strict=True)
        ]
        found = self._client.post_all("/v1/chat/completions", bodies, _bar(len(bodies), use_tqdm))
        return [read_output(body, None) for body in found]

    @property
    def url(self) -> str:
        """Where the same model answers over HTTP meanwhile, to who shows `api_key`."""
        return self.server.url

    def close(self) -> None:
        """Stop the cluster. Again: nothing."""
        self._client.close()
        self.server.stop()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _completion(self, prompt: Prompt, params: SamplingParams | None) -> Body:
        def body() -> dict[str, Any]:
            said = _said(params)
            if params is not None and params.logprobs is not None:
                said["logprobs"] = params.logprobs
            return {"model": self._model, **said, **prompt.body()}

        return body

    def _chat(self, chat: Chat, params: SamplingParams | None, fields: Mapping[str, Any]) -> Body:
        def body() -> dict[str, Any]:
            messages, frames = read_chat(chat)
            said = _said(params)
            if params is not None and params.logprobs is not None:
                said |= {"logprobs": True, "top_logprobs": params.logprobs}
            io = with_frames(fields.get("media_io_kwargs"), frames)
            extra = {**fields, **({"media_io_kwargs": io} if io else {})}
            return {"model": self._model, "messages": messages, **said, **extra}

        return body


def _said(params: SamplingParams | None) -> dict[str, Any]:
    """Without parameters the checkpoint's own apply, but for the length."""
    said = {"max_tokens": DEFAULT_MAX_TOKENS} if params is None else params.body()
    return {**said, "return_token_ids": True}


def _each(params: Params, num: int) -> list[SamplingParams | None]:
    if params is None or isinstance(params, SamplingParams):
        return [params] * num
    if len(params) != num:
        raise BadRequest(
            f"there are {len(params)} sampling_params for {num} prompts", param="sampling_params"
        )
    return list(params)


def _bar(total: int, shown: bool) -> AbstractContextManager[Bar | None] | None:
    if not shown:
        return None
    from tqdm.auto import tqdm

    bar: AbstractContextManager[Bar | None] = tqdm(total=total, desc="Processed prompts")
    return bar
