"""Reading answers, however their text is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from epd.prompt.calls import AnswerForm, AnswerReader, CallPiece, Reading, joined_readings

CALL = '<tool_call>\n{"name": "look", "arguments": {"at": ["a", 1]}}\n</tool_call>'
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
FORMS = (
    AnswerForm(reasoning=True, calls=True),
    AnswerForm(reasoning=True, begun=True, calls=True),
    AnswerForm(calls=True),
    AnswerForm(calls=True, parallel=False),
    AnswerForm(reasoning=True),
    AnswerForm(),
)


def read(*pieces: str, **form: bool) -> Reading:
    return read_as(AnswerForm(**form), *pieces)


def read_as(form: AnswerForm, *pieces: str) -> Reading:
    reader = AnswerReader(form)
    readings = [*(reader.feed(piece) for piece in pieces), reader.finish()]
    begun: set[int] = set()
    for found in (call for reading in readings for call in reading.calls):
        assert bool(found.name) == (found.index not in begun)  # whole, once, and first
        begun.add(found.index)
    return joined_readings(readings)


def call(name: str, arguments: str, index: int = 0) -> CallPiece:
    return CallPiece(index=index, name=name, arguments=arguments)


def fragments() -> st.SearchStrategy[str]:
    """Text that is full of marks, whole calls, broken ones, and JSON."""
    values = st.recursive(
        st.none() | st.integers() | st.text('ab"\\{}<>\u2603', max_size=4),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner, max_size=2)
        ),
        max_leaves=4,
    )
    block = st.fixed_dictionaries(
        {}, optional={"name": st.sampled_from(["f", "", "g h"]), "arguments": values, "x": values}
    ).map(lambda found: f"<tool_call>\n{json.dumps(found)}\n</tool_call>")
    letters = st.text('{}[]":,<>/ \nab\\', max_size=6)
    return st.lists(st.sampled_from([*MARKS, CALL, CALL[:-14]]) | block | letters, max_size=6).map(
        "".join
    )


@given(fragments(), st.lists(st.integers(0, 300), max_size=8), st.sampled_from(FORMS))
@example(CALL, list(range(len(CALL))), FORMS[2])
def test_pieces_make_no_difference(text: str, cuts: list[int], form: AnswerForm) -> None:
    """Streaming and not: what is added up is the same, cut anywhere or everywhere."""
    places = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    pieces = [text[a:b] for a, b in zip(places, places[1:], strict=False)]
    assert read_as(form, *pieces) == read_as(form, text) == read_as(form, *text)


@given(fragments())
def test_without_a_form_all_is_text(text: str) -> None:
    assert read(text) == Reading(text=text)


@given(fragments(), st.booleans())
def test_no_word_of_an_answer_without_calls_is_lost(text: str, begun: bool) -> None:
    """Only marks and the white space around them are not shown."""
    found = read(text, reasoning=True, begun=begun)
    rest = text.lstrip()
    if begun or rest.startswith("<think>"):
        thought, _, rest = rest.removeprefix("<think>").partition("</think>")
        assert found.reasoning == thought.strip()
        assert found.text == rest.lstrip()
    else:
        assert (found.reasoning, found.text) == ("", text)


@given(st.text('ab <tool_call>{}":,', max_size=40).filter(lambda text: "arguments" not in text))
def test_what_is_no_call_is_text(text: str) -> None:
    assert read(text, calls=True).text == text


def test_a_call_has_its_name_and_its_arguments_as_they_were_written() -> None:
    found = read("I look.\n" + CALL, calls=True)
    assert found == Reading(text="I look.", calls=(call("look", '{"at": ["a", 1]}'),))


def test_several_calls_have_an_index_each() -> None:
    found = read(f"{CALL}\n{CALL}\n", calls=True)
    assert found.text == ""
    assert found.calls == tuple(call("look", '{"at": ["a", 1]}', index) for index in (0, 1))


def test_the_name_comes_first_and_arguments_as_they_are_made() -> None:
    """An argument that takes long is seen growing."""
    reader = AnswerReader(AnswerForm(calls=True))
    assert reader.feed('ok <tool_call>{"name": "look", ').calls == ()
    assert reader.feed('"arguments": {"a').calls == (call("look", '{"a'),)
    assert reader.feed('t": "</tool_call> ').calls == (call("", 't": "</tool_call> '),)
    assert reader.feed('x"}').calls == (call("", 'x"}'),)
    assert reader.feed("}</tool_call>") == reader.finish() == Reading()


def test_where_one_call_is_wanted_nothing_after_it_is_read() -> None:
    reader = AnswerReader(AnswerForm(calls=True, parallel=False))
    assert reader.feed(f"{CALL}{CALL} more").calls == (call("look", '{"at": ["a", 1]}'),)
    assert reader.done and reader.feed("even more") == reader.finish() == Reading()


@pytest.mark.parametrize(
    ("block", "name", "arguments"),
    [
        ('{"arguments": {"a": 1}, "name": "f"}', "f", '{"a": 1}'),
        ('{"name": "f"}', "f", "{}"),
        ('{"name": "f", "arguments": null}', "f", "{}"),
        ('{"name": "f", "arguments": {}, "id": [7]}', "f", "{}"),
        ('{"name": "f\\u00e9", "arguments": {"a": "}\\"{"}}', "f\u00e9", '{"a": "}\\"{"}'),
        ('{"name": "f", "arguments": {"a": 1}', "f", '{"a": 1}'),
        ('{"name": "f", "arguments": {"a": 1', "f", '{"a": 1'),
        ('{"name": "f", "arguments": {}, "name": "g", "arguments": {"a": 1}}', "f", "{}"),
    ],
)
@pytest.mark.parametrize("close", ["</tool_call>", ""])
def test_a_call_may_be_written_in_many_ways(
    block: str, name: str, arguments: str, close: str
) -> None:
    """Keys in any order, none for no arguments, braces and marks missing at the end."""
    assert read(f"<tool_call>{block}{close}", calls=True) == Reading(calls=(call(name, arguments),))


@pytest.mark.parametrize(
    "block",
    [
        "hello",
        "{}",
        '{"name": ""}',
        '{"name": 7, "arguments": {}}',
        '{"name": "f", "arguments": "{}"}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "argum',
        '{"arguments": {"a": 1}}',
        '[{"name": "f", "arguments": {}}]',
        '{"name": ' + "[" * 3000 + "]" * 3000 + "}",
    ],
)
def test_a_block_that_is_no_call_is_shown_as_it_is(block: str) -> None:
    text = f"see: <tool_call>{block}</tool_call> !"
    assert read(text, calls=True) == Reading(text=text)


def test_a_call_behind_a_block_that_is_none_is_found() -> None:
    found = read(f"<tool_call>hm {CALL} end", calls=True)
    assert found.text == "<tool_call>hmend" and len(found.calls) == 1


def test_reasoning_stands_apart_from_the_answer() -> None:
    found = read("<think>\nwell\n\nso\n</think>\n\nYes.\n", reasoning=True)
    assert found == Reading(reasoning="well\n\nso", text="Yes.\n")


def test_reasoning_that_the_prompt_opened_goes_on() -> None:
    assert read("well</think>Yes", reasoning=True, begun=True) == Reading(
        reasoning="well", text="Yes"
    )
    assert read("<think>well</think>Yes", reasoning=True, begun=True).reasoning == "well"


def test_reasoning_that_never_ends_is_all_there_is() -> None:
    assert read("<think> on and on </thi", reasoning=True) == Reading(reasoning="on and on </thi")


def test_marks_inside_of_an_answer_are_text() -> None:
    """Reasoning begins an answer or does not exist."""
    text = "The mark <think> begins, </think> ends."
    assert read(text, reasoning=True) == Reading(text=text)


def test_a_call_inside_of_reasoning_is_only_a_thought() -> None:
    found = read(f"<think>maybe {CALL}</think>{CALL}", reasoning=True, calls=True)
    assert CALL in found.reasoning and len(found.calls) == 1 and found.text == ""
