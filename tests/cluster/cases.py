"""Prompts that every topology must answer as Hugging Face does, and how a client asks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tests.cluster.running import Cluster, data_url, picture

MAX_TOKENS = 24

EXTENSIONS = {  # not in the stock client's signature
    "add_generation_prompt",
    "cache_salt",
    "chat_template_kwargs",
    "continue_final_message",
    "ignore_eos",
    "include_stop_str_in_output",
    "media_io_kwargs",
    "min_p",
    "min_tokens",
    "mm_processor_kwargs",
    "priority",
    "prompt_logprobs",
    "repetition_penalty",
    "request_id",
    "skip_special_tokens",
    "stop_token_ids",
    "structured_outputs",
    "top_k",
}

# Tall, wide, tiny, smaller than a patch group, odd, too large for the processor.
SIZES = ((112, 84), (61, 333), (400, 97), (28, 28), (15, 40), (127, 211), (700, 650))
IMAGE: dict[str, Any] = {"type": "image"}


@dataclass(frozen=True)
class Case:
    """A chat in Hugging Face's form, where a picture is a part without content."""

    messages: list[dict[str, Any]]
    images: list[Image.Image]

    def asked(self, url_of: Callable[[Image.Image], str] = data_url) -> Any:
        """The same chat in OpenAI's form."""
        urls = iter([url_of(image) for image in self.images])
        return [{**m, "content": _with_urls(m["content"], urls)} for m in self.messages]


def _with_urls(content: Any, urls: Iterator[str]) -> Any:
    if isinstance(content, str):
        return content
    return [
        {"type": "image_url", "image_url": {"url": next(urls)}} if part == IMAGE else part
        for part in content
    ]


@dataclass(frozen=True)
class Answer:
    """What a client can tell of an answer, streamed or not."""

    token_ids: list[int]
    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


class Client:
    """The stock client of one cluster. May be shared by threads."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._openai = cluster.client(timeout=240)
        self._model = cluster.model

    def close(self) -> None:
        """Closes its connections."""
        self._openai.close()

    def ask(self, messages: Any, *, stream: bool = False, **options: Any) -> Answer:
        """`options` in the API's words; greedy and MAX_TOKENS unless they say something else."""
        if stream:
            return self._streamed(self._body(messages, options))
        return self._whole(self.complete(messages, **options))

    def complete(self, messages: Any, **options: Any) -> Any:
        """The stock client's object, of one request that is not streamed."""
        return self._openai.chat.completions.create(**self._body(messages, options))

    def _body(self, messages: Any, options: dict[str, Any]) -> dict[str, Any]:
        extra = {name: options.pop(name) for name in EXTENSIONS & options.keys()}
        body = {"temperature": 0, "max_tokens": MAX_TOKENS, "model": self._model, **options}
        return {**body, "messages": messages, "extra_body": {"return_token_ids": True, **extra}}

    def _whole(self, whole: Any) -> Answer:
        [choice] = whole.choices
        return Answer(
            token_ids=choice.token_ids,
            text=choice.message.content,
            prompt_tokens=whole.usage.prompt_tokens,
            completion_tokens=whole.usage.completion_tokens,
            finish_reason=choice.finish_reason,
        )

    def _streamed(self, body: dict[str, Any]) -> Answer:
        *chunks, last = self._openai.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **body
        )
        choices = [choice for chunk in chunks for choice in chunk.choices]
        return Answer(
            token_ids=[token for choice in choices for token in choice.token_ids],
            text="".join(choice.delta.content or "" for choice in choices),
            prompt_tokens=last.usage.prompt_tokens,
            completion_tokens=last.usage.completion_tokens,
            finish_reason=choices[-1].finish_reason,
        )


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _user(*parts: str | None) -> dict[str, Any]:
    """None stands for a picture."""
    content = [IMAGE if part is None else _text(part) for part in parts]
    return {"role": "user", "content": content}


def _pictures(*sizes: tuple[int, int], seed: int = 0) -> list[Image.Image]:
    return [picture(*size, seed=seed + i) for i, size in enumerate(sizes)]


def _interleaved(num: int) -> Case:
    """`num` pictures of different sizes between words; every second one with a system prompt."""
    parts: list[str | None] = ["Compare what you see: "]
    for i in range(num):
        parts += [None, f" and number {i},"]
    system = [{"role": "system", "content": f"You know {num} things."}] if num % 2 else []
    return Case([*system, _user(*parts)], _pictures(*SIZES[:num], seed=10 * num))


SYSTEM = {"role": "system", "content": "Answer in verse."}
GREETING = {"role": "assistant", "content": "A house."}

CASES: dict[str, Case] = {
    **{f"{num} pictures": _interleaved(num) for num in range(7)},
    "plain string": Case([{"role": "user", "content": "Who are you?"}], []),
    "text turns": Case([SYSTEM, _user("Hello"), GREETING, _user("Again, in 3 words?")], []),
    "picture alone": Case([_user(None)], _pictures((90, 140))),
    "large": Case([_user("Describe ", None)], _pictures(SIZES[6], seed=3)),
    "two of one size": Case(
        [_user(None, "is left, ", None, "is right. Which one?")],
        _pictures((140, 112), (140, 112), seed=20),
    ),
    "the same twice": Case([_user(None, None, "Differences?")], _pictures((84, 84)) * 2),
    "picture in an old turn": Case(
        [_user("What is it? ", None), GREETING, _user("Are you sure?")], _pictures((200, 60))
    ),
    "pictures in turns": Case(
        [SYSTEM, _user(None, "First."), GREETING, _user("Second: ", None), GREETING, _user(None)],
        _pictures((60, 200), (28, 56), (99, 101), seed=30),
    ),
    "long text": Case([_user("word " * 150, None, "end " * 40)], _pictures((64, 64), seed=40)),
}


# Prompts from the shortest that the template makes to more than 2,000 tokens; "x " is one token.
LENGTHS: dict[str, Case] = {
    f"{words} words": Case([{"role": "user", "content": "x " * words}], [])
    for words in (0, 1, 14, 15, 16, 17, 31, 33, 63, 100, 257, 500, 1000, 1500, 2000)
}
LONG_WITH_PICTURES = Case(
    [_user("y " * 600, None, "z " * 500, None, "a " * 300)],
    _pictures((200, 150), (97, 222), seed=60),
)
