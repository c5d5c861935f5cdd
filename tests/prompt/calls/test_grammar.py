"""The grammar of calls, asked of llguidance: what may be said is what the reader reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from epd.prompt.calls import AnswerForm, AnswerReader, Signature, answer_grammar
from tests.prompt.folders import PLAIN, byte_level_bpe

llguidance = pytest.importorskip("llguidance")

MARKS = (*PLAIN, "<tool_call>", "</tool_call>")
PLACE = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/place"}},
    "required": ["at"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "integer"}},
}
FUNCTIONS = (
    Signature(name="look", parameters=PLACE, strict=True),
    Signature(name="go", parameters=None),
    Signature(name="say", parameters={"not": {"required": ["never"]}}),
)
LOOK = '<tool_call>\n{"name": "look", "arguments": {"at": 3}}\n</tool_call>'
GO = '<tool_call>\n{"name": "go", "arguments": {}}\n</tool_call>'
SAY = '<tool_call>\n{"name": "say", "arguments": {"what": [1, {"a": null}]}}\n</tool_call>'
CALLS = AnswerForm(calls=True)
ONE = AnswerForm(calls=True, parallel=False)
REASONS = AnswerForm(calls=True, reasoning=True)
BEGUN = AnswerForm(calls=True, reasoning=True, begun=True)
ANSWERS = (
    json.dumps({"grammars": [{"name": "x", "json_schema": {"const": "yes"}}], "max_tokens": None}),
    'start: quoted\nquoted: "\\"yes\\""',
)


@cache
def tokenizer(marks: tuple[str, ...]) -> Tokenizer:
    """Added tokens for the marks, as Qwen has them, or none."""
    made = byte_level_bpe(plain=())
    made.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in marks])
    return made


@cache
def ours(marks: tuple[str, ...]) -> Any:
    made = tokenizer(marks)
    eos = made.token_to_id("<|im_end|>")
    return llguidance.LLTokenizer(made.to_str(), eos_token=eos)


def allowed(grammar: str, text: str, marks: tuple[str, ...]) -> bool:
    """Whether this may be an answer, all of it."""
    matcher = llguidance.LLMatcher(ours(marks), grammar)
    assert not matcher.is_error(), matcher.get_error()
    token_ids = tokenizer(marks).encode(text).ids
    return bool(matcher.consume_tokens(token_ids) and matcher.is_accepting())


def names_in(text: str, form: AnswerForm) -> Sequence[str]:
    return [call.name for call in AnswerReader(form).feed(text).calls]


@pytest.fixture(params=[MARKS, ()], ids=["tokens", "text"])
def marks(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What the tokenizer has of the marks."""
    found: tuple[str, ...] = request.param
    return found


@pytest.mark.parametrize(
    ("text", "form", "names"),
    [
        (LOOK, CALLS, ["look"]),
        (GO, ONE, ["go"]),
        (f"{LOOK}\n{GO}\n{SAY}", CALLS, ["look", "go", "say"]),
        (LOOK, REASONS, ["look"]),
        (f"<think>\nI < you\n</think>\n\n{GO}", REASONS, ["go"]),
        (f"\nso\n</think>\n{GO}", BEGUN, ["go"]),
    ],
)
def test_what_has_to_be_a_call_is_read_as_one(
    text: str, form: AnswerForm, names: list[str], marks: tuple[str, ...]
) -> None:
    """Whether the marks are tokens or text."""
    assert allowed(answer_grammar(form, FUNCTIONS, must_call=True, tokens=marks), text, marks)
    assert names_in(text, form) == names


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("hello", CALLS),
        ("", CALLS),
        (f"I look: {LOOK}", CALLS),
        (f"{LOOK}\n{GO}", ONE),
        (LOOK.replace("3", '"x"'), CALLS),
        (LOOK.replace("look", "fly"), CALLS),
        (GO.replace("{}", '{"a": 1}'), CALLS),
        (SAY.replace('{"what": [1, {"a": null}]}', "[]"), CALLS),
        (LOOK, BEGUN),
        ("<think>so</think>", REASONS),
    ],
)
def test_nothing_else_may_be_said_then(text: str, form: AnswerForm, marks: tuple[str, ...]) -> None:
    """Text, none of the calls, too many of them, other names, arguments of another kind."""
    grammar = answer_grammar(form, FUNCTIONS, must_call=True, tokens=marks)
    assert not allowed(grammar, text, marks)


@pytest.mark.parametrize(
    ("text", "form", "may"),
    [
        ("hello {", CALLS, True),
        ("", CALLS, True),
        (f"I look: {LOOK}", CALLS, True),
        (f"I look: {LOOK}{GO}\nand", CALLS, True),
        (f"{LOOK}", ONE, True),
        (f"{LOOK}{GO}", ONE, False),
        (f"I look: {LOOK.replace('3', 'false')}", CALLS, False),
        ("<tool_call>hm</tool_call>", CALLS, False),
        (f"so</think>\n\nI look: {LOOK}", BEGUN, True),
        (f"so</think>{LOOK.replace('3', 'false')}", BEGUN, False),
        ("<think>so</think>hello", REASONS, True),
        ("hello", REASONS, True),
    ],
)
def test_what_may_be_a_call_is_a_right_one_or_text(
    text: str, form: AnswerForm, may: bool, marks: tuple[str, ...]
) -> None:
    assert allowed(answer_grammar(form, FUNCTIONS, tokens=marks), text, marks) == may


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(
    ("text", "form", "may"),
    [
        ('"yes"', CALLS, True),
        (f"{LOOK}\n{GO}", CALLS, True),
        ('"no"', CALLS, False),
        (f'"yes"{GO}', CALLS, False),
        ('<think>is it?</think>\n"yes"', REASONS, True),
        ("<think>is it?</think>\nyes", REASONS, False),
        (f"hm</think>{GO}", BEGUN, True),
        ('"yes"', BEGUN, False),
    ],
)
def test_an_answer_with_a_form_reasons_before_it_or_calls_instead(
    answer: str, text: str, form: AnswerForm, may: bool, marks: tuple[str, ...]
) -> None:
    grammar = answer_grammar(form, FUNCTIONS, answer=answer, tokens=marks)
    assert allowed(grammar, text, marks) == may


def test_a_form_alone_is_what_it_is(marks: tuple[str, ...]) -> None:
    form = AnswerForm(reasoning=True, begun=True)
    assert allowed(answer_grammar(form, answer=ANSWERS[1], tokens=marks), 'a</think>"yes"', marks)
    assert answer_grammar(AnswerForm(), answer=ANSWERS[0], tokens=marks) == ANSWERS[0]


def test_what_a_strict_schema_cannot_say_is_an_error() -> None:
    """Other schemas are followed as far as they can be."""
    for strict in (True, False):
        function = Signature(name="f", parameters={"unevaluatedItems": 5}, strict=strict)
        grammar = answer_grammar(CALLS, [function], must_call=True)
        assert llguidance.LLMatcher(ours(()), grammar).is_error() == strict
