"""Requests that are read from files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from epd.bench.datasets import Measure, Shape, asks
from epd.bench.datasets.trace import seconds
from epd.errors import ConfigError

TRACE = """TIMESTAMP,NumImages,ContextTokens,GeneratedTokens
2024-10-15 00:00:03.5000000,0,70,5
2024-10-15 00:00:01.0000000,2,1100,9
2024-10-15 00:00:02.0000000,1,600,0
"""


def shape_of(tmp_path: Path, name: str, content: str, **fields: Any) -> Shape:
    path = tmp_path / "data"
    path.write_text(content)
    return Shape(name=name, path=str(path), **{"num": 10, **fields})


def test_a_trace_is_replayed_in_the_order_of_its_times(tmp_path: Path) -> None:
    """A picture counts 500 tokens here, a word 2: 1100 - 2 * 500 tokens are 50 words."""
    measure = Measure(per_word=2.0, per_picture=500.0)
    found = asks(shape_of(tmp_path, "trace", TRACE, trace_speed=2.0, measure=measure))
    assert [ask.at_s for ask in found] == [0.0, 0.5, 1.25]
    assert [len(ask.items) for ask in found] == [2, 1, 0]
    assert [len(ask.text.split()) for ask in found] == [50, 50, 35]
    assert [ask.output_tokens for ask in found] == [9, 1, 5]


def test_a_trace_may_be_zipped_and_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress(TRACE.encode()))
    assert len(asks(Shape(name="trace", path=str(path), num=2))) == 2


@pytest.mark.parametrize(
    "moment", ["1728950401.25", "2024-10-15 00:00:01.2500000", "2024-10-15T00:00:01.25+00:00"]
)
def test_times_are_numbers_or_dates(moment: str) -> None:
    assert seconds(moment) == 1728950401.25


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "no column TIMESTAMP, NumImages"),
        (TRACE.replace(",70,", ",many,"), "line 2: "),
        (TRACE.replace(",70,", ",-1,"), "ContextTokens is -1"),
        (TRACE.splitlines()[0], "has no requests"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_by_what_is_wrong(
    tmp_path: Path, content: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        asks(shape_of(tmp_path, "trace", content))


def chat(*texts: str, name: str = "conversations", key: str = "value") -> dict[str, Any]:
    return {name: [{key: text} for text in texts]}


def test_sharegpt_asks_the_first_question_for_as_much_as_was_answered(tmp_path: Path) -> None:
    """The chats of one turn, and those with a short answer, are passed over."""
    chats = [
        chat("how are you all", "one two three four five"),
        chat("no answer is here"),
        chat("a short answer here", "yes"),
        chat("what is that thing", "a b c d e f", name="conversation", key="content"),
    ]
    found = asks(shape_of(tmp_path, "sharegpt", json.dumps(chats)))
    assert {(ask.text, ask.output_tokens) for ask in found} == {
        ("how are you all", 5),
        ("what is that thing", 6),
    }
    fixed = asks(shape_of(tmp_path, "sharegpt", json.dumps(chats), sharegpt_output_len=7))
    assert [ask.output_tokens for ask in fixed] == [7, 7, 7]


def test_custom_lines_are_sent_as_they_are(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    lines = [
        {"messages": messages, "max_tokens": 3, "top_p": 0.5},
        {"prompt": "p", "output_tokens": 4},
        chat("question", "answer"),
    ]
    content = "\n".join(map(json.dumps, lines)) + "\n\n"
    one, two, three, again = asks(shape_of(tmp_path, "custom", content, num=4, output_len=9))
    assert (one.messages, one.output_tokens, one.body) == (messages, 3, {"top_p": 0.5})
    assert (two.text, two.output_tokens) == ("p", 4)
    assert (three.text, three.output_tokens) == ("question", 9)
    assert again == one


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("custom", '{"prompt": "a"}\n{', "line 2: no JSON"),
        ("custom", "[]", "line 1: no object"),
        ("custom", '{"text": "a"}', "line 1: no messages, prompt or conversations"),
        ("custom", '{"prompt": "a", "max_tokens": "x"}', "line 1: a length of 'x'"),
        ("custom", "", "has no request in it"),
        ("sharegpt", "{}", "no list of chats"),
        ("sharegpt", "x", "no JSON"),
        ("sharegpt", "[{}]", "has no request in it"),
    ],
)
def test_a_wrong_file_is_refused_by_what_is_wrong(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        asks(shape_of(tmp_path, name, content))


@pytest.mark.parametrize("name", ["sharegpt", "custom", "trace"])
def test_a_missing_file_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="--dataset-path"):
        asks(Shape(name=name))
    with pytest.raises(ConfigError, match="nowhere"):
        asks(Shape(name=name, path="/nowhere"))
