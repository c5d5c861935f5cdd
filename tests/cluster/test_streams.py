"""A stream says what the whole answer says, for requests that nobody chose."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.cluster.cases import CASES, Client
from tests.cluster.running import Cluster

NUM_REQUESTS = 200
SMALL = ("plain string", "text turns", "picture alone", "pictures in turns", "2 pictures")
EMOJI = "\U0001f600\U0001f469\u4e16\u00e9"


@pytest.fixture(scope="module")
def client(path: Path) -> Iterator[Client]:
    cluster = Cluster(path, "1E1P1D")
    client = Client(cluster)
    yield client
    client.close()
    assert cluster.stop() == 0


@pytest.fixture(scope="module")
def bytes_of_emoji(path: Path) -> dict[str, float]:
    """A bias towards the tokens that characters of several tokens are made of."""
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    return {str(one): 40.0 for one in tokenizer.encode(EMOJI, add_special_tokens=False).ids}


@dataclass
class Said:
    """One choice, as far as it has come. Logprobs depend on the batch, by a rounding."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list, compare=False)
    finish_reason: str | None = None

    def add(self, choice: Any, text: str) -> None:
        """More of it, or all."""
        self.text += text
        self.token_ids += choice.token_ids
        self.tokens += [one.token for one in choice.logprobs.content]
        self.logprobs += [one.logprob for one in choice.logprobs.content]
        self.finish_reason = choice.finish_reason


def said(client: Client, messages: Any, **options: Any) -> Said:
    """The first choice of an answer, after all of them were streamed as well."""
    body = client._body(messages, dict(options))
    whole = client._openai.chat.completions.create(**body)
    *chunks, last = client._openai.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **body
    )
    asked = defaultdict[int, Said](Said)
    for choice in whole.choices:
        asked[choice.index].add(choice, choice.message.content)
    streamed = defaultdict[int, Said](Said)
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        streamed[choice.index].add(choice, choice.delta.content or "")
    assert streamed == asked, options
    for index, one in asked.items():
        assert streamed[index].logprobs == pytest.approx(one.logprobs, abs=1e-3)
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    return asked[0]


def wishes(draw: random.Random, bias: dict[str, float]) -> dict[str, Any]:
    """What one request asks for."""
    found: dict[str, Any] = {
        "temperature": draw.choice((0.0, 0.8, 1.5)),
        "seed": draw.randrange(1000),
        "n": draw.choice((1, 1, 2, 3)),
        "max_tokens": draw.randint(1, 20),
        "min_tokens": draw.choice((0, 0, 1)),
        "skip_special_tokens": draw.random() < 0.7,
        "include_stop_str_in_output": draw.random() < 0.3,
        "logprobs": True,
        "top_k": 0,
    }
    return {**found, "logit_bias": bias} if draw.random() < 0.5 else found


@pytest.mark.slow
def test_random_requests_are_streamed_as_they_are_answered(
    client: Client, bytes_of_emoji: dict[str, float]
) -> None:
    """Each once without stop strings, and once with one that begins anywhere in its answer."""

    def ask(number: int) -> str:
        draw = random.Random(number)
        messages = CASES[draw.choice(SMALL)].asked()
        options = wishes(draw, bytes_of_emoji)
        text = said(client, messages, **options).text
        if text:
            start = draw.randrange(len(text))
            stop = text[start : start + draw.randint(1, 5)]
            stopped = said(client, messages, stop=[stop], **options).text
            end = text.find(stop) + len(stop) * options["include_stop_str_in_output"]
            assert options["min_tokens"] or stopped == text[:end]
        return text

    with ThreadPoolExecutor(8) as threads:
        texts = list(threads.map(ask, range(NUM_REQUESTS // 2)))
    assert len(set(texts)) > NUM_REQUESTS // 4
    shown = "".join(texts)
    assert any(character in shown for character in EMOJI) and "\ufffd" in shown
