"""A model that has never been trained calls functions as it is told to, in every topology."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from openai import omit
from openai.types.chat import ChatCompletionMessageFunctionToolCall as Call
from openai.types.chat.chat_completion import Choice
from tokenizers import Tokenizer

from tests.cluster.running import Cluster
from tests.prompt.folders import TOOLS_TEMPLATE

SEEDS = range(4)
NUM_RANDOM = 100
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "place": {"enum": ["here", "th\u00e9re", "<tool_call>"]},
        "far": {"type": "boolean"},
        "steps": {"type": "array", "items": {"enum": [1, 2.5, None]}, "maxItems": 3},
    },
    "required": ["place", "far", "steps"],
    "additionalProperties": False,
}
LOOK = {"name": "look", "parameters": PARAMETERS}
TOOLS = [
    {"type": "function", "function": LOOK},
    {"type": "function", "function": {"name": "go"}},
]


@pytest.fixture(scope="module", params=[pytest.param("EPD", marks=pytest.mark.slow), "1E1P1D"])
def cluster(
    request: pytest.FixtureRequest, path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    template = tmp_path_factory.mktemp("template") / "tools.jinja"
    template.write_text(TOOLS_TEMPLATE)
    flags = ["--chat-template", str(template), "--set", "gateway.reasoning_format=none"]
    cluster = Cluster(path, request.param, flags=flags)
    yield cluster
    assert cluster.stop() == 0


@pytest.fixture(scope="module")
def ids(path: Path) -> Callable[[str], str]:
    """Ids of tokens as `logit_bias` has them."""
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    return lambda token: str(tokenizer.token_to_id(token))


def asked(seed: int, **fields: Any) -> dict[str, Any]:
    return {
        "model": "auto",
        "messages": [{"role": "user", "content": "Look."}],
        "max_tokens": 300,
        "temperature": 1.5,
        "seed": seed,
        "tools": TOOLS,
        "tool_choice": "required",
        "extra_body": {"chat_template_kwargs": {"thinking": False}},
        **fields,
    }


def calls_of(choice: Choice) -> list[tuple[str, str]]:
    """The names and arguments of its calls."""
    calls = choice.message.tool_calls or []
    functions = [call.function for call in calls if isinstance(call, Call)]
    assert len(functions) == len(calls)
    return [(function.name, function.arguments) for function in functions]


@dataclass
class Said:
    """One choice as a client puts it together, from all of its chunks or from the whole."""

    content: str = ""
    reasoning: str = ""
    calls: dict[int, list[str]] = field(default_factory=lambda: defaultdict(lambda: ["", "", ""]))
    finish_reason: str | None = None

    def add(self, said: Any, finish_reason: str | None) -> None:
        """A delta, or the message."""
        self.content += said.content or ""
        self.reasoning += getattr(said, "reasoning_content", None) or ""
        for place, call in enumerate(said.tool_calls or ()):
            known = self.calls[getattr(call, "index", place)]
            pieces = (call.id, call.function.name, call.function.arguments)
            for number, piece in enumerate(pieces):
                known[number] += piece or ""
        self.finish_reason = finish_reason or self.finish_reason


def wishes(draw: random.Random) -> dict[str, Any]:
    """Calls that must be, may be, or are cut off; forms; and nothing of the kind."""
    schema = {"name": "look", "schema": PARAMETERS}
    named = {"type": "function", "function": {"name": "look"}}
    strict = [{"type": "function", "function": {**LOOK, "strict": True}}]
    kinds: list[dict[str, Any]] = [
        {"tool_choice": "required"},
        {"tool_choice": named, "n": 2},
        {"tool_choice": "auto"},
        {"tool_choice": "auto", "tools": strict},
        {"tool_choice": "none", "response_format": {"type": "json_object"}},
        {"tools": omit, "tool_choice": omit, "response_format": {"type": "json_object"}, "n": 2},
        {
            "tool_choice": "auto",
            "response_format": {"type": "json_schema", "json_schema": schema},
        },
    ]
    return {
        **draw.choice(kinds),
        "max_tokens": draw.choice((20, 60, 200)),
        "parallel_tool_calls": draw.random() < 0.5,
    }


def check(name: str, written: str) -> None:
    """The arguments are what the function takes."""
    arguments = json.loads(written)
    if name == "go":
        assert arguments == {}
        return
    assert name == "look" and set(arguments) == set(PARAMETERS["required"])
    assert arguments["place"] in PARAMETERS["properties"]["place"]["enum"]
    assert isinstance(arguments["far"], bool)
    assert len(arguments["steps"]) <= 3 and set(arguments["steps"]) <= {1, 2.5, None}


@pytest.mark.parametrize("parallel", [True, False])
def test_what_has_to_be_called_is_called_right(
    cluster: Cluster, ids: Callable[[str], str], parallel: bool
) -> None:
    """Through the stock client, whole and streamed, at a temperature at which it knows nothing;
    it is only pushed to end where it may."""
    client = cluster.client()
    for seed in SEEDS:
        ask = asked(seed, parallel_tool_calls=parallel, logit_bias={ids("<|im_end|>"): 10})
        [whole] = client.chat.completions.create(**ask).choices
        with client.chat.completions.stream(**ask) as stream:
            [streamed] = stream.get_final_completion().choices
        assert whole.finish_reason == streamed.finish_reason == "tool_calls"
        assert whole.message.content is None
        calls = calls_of(whole)
        assert calls and (parallel or len(calls) == 1)
        assert calls_of(streamed) == calls
        for name, arguments in calls:
            check(name, arguments)


@pytest.mark.slow
def test_random_calls_and_forms_are_streamed_as_they_are_answered(
    cluster: Cluster, ids: Callable[[str], str]
) -> None:
    """What a call is called by is its request's own, so only its place is compared."""
    client = cluster.client()
    found: Counter[str] = Counter()

    def ask(number: int) -> None:
        draw = random.Random(number)
        body = asked(number, logit_bias={ids("<|im_end|>"): 5}, **wishes(draw))
        if body["tools"] is omit:
            del body["parallel_tool_calls"]
        whole, streamed = defaultdict[int, Said](Said), defaultdict[int, Said](Said)
        for choice in client.chat.completions.create(**body).choices:
            whole[choice.index].add(choice.message, choice.finish_reason)
        for chunk in client.chat.completions.create(stream=True, **body):
            for piece in chunk.choices:
                streamed[piece.index].add(piece.delta, piece.finish_reason)
        for one in (*whole.values(), *streamed.values()):
            for call in one.calls.values():
                assert call[0].startswith("call_")
                call[0] = ""
        assert streamed == whole, body
        found.update(one.finish_reason or "" for one in whole.values())

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(NUM_RANDOM)))
    assert set(found) == {"tool_calls", "stop", "length"}


def test_the_function_that_is_named_is_called(cluster: Cluster) -> None:
    """By each of several choices, which differ."""
    named = {"type": "function", "function": {"name": "look"}}
    choices = (
        cluster.client()
        .chat.completions.create(**asked(7, tool_choice=named, n=3, parallel_tool_calls=False))
        .choices
    )
    calls = [call for choice in choices for call in calls_of(choice)]
    assert {name for name, _ in calls} == {"look"}
    assert len({arguments for _, arguments in calls}) > 1


def test_a_strict_function_is_called_right(cluster: Cluster, ids: Callable[[str], str]) -> None:
    """The model is pushed to begin a call, and does not get to do it again inside of it."""
    strict = [{"type": "function", "function": {**LOOK, "strict": True}}]
    ask = asked(3, tools=strict, tool_choice="auto", logit_bias={ids("<tool_call>"): 100})
    [choice] = cluster.client().chat.completions.create(**ask, parallel_tool_calls=False).choices
    [(name, arguments)] = calls_of(choice)
    check(name, arguments)


def test_nobody_is_made_to_call(cluster: Cluster) -> None:
    """The control: left alone, this model never finds the form."""
    ask = asked(3, tool_choice="auto", max_tokens=60)
    [choice] = cluster.client().chat.completions.create(**ask).choices
    assert not choice.message.tool_calls and choice.message.content
