"""The events of an answer make its items, in whatever pieces it comes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from epd.gateway.responses.transcript import Transcript
from epd.prompt.calls import CallPiece
from tests.gateway.responses.asking import rebuilt

SAID = st.lists(
    st.tuples(st.sampled_from(("reasoning", "text", "call")), st.text(min_size=1, max_size=6)),
    max_size=8,
)


def run(said: list[tuple[str, str]], cuts: list[int], *, complete: bool) -> Any:
    """The events and the items of what is said, each piece cut in two where `cuts` say."""
    transcript, index = Transcript("r"), -1
    events: list[Any] = []
    for number, (kind, text) in enumerate(said):
        cut = cuts[number % len(cuts)] if cuts else 0
        index += kind == "call"
        for first, piece in ((True, text[:cut]), (False, text[cut:])):
            if kind == "reasoning":
                events += transcript.reasoning(piece)
            elif kind == "text":
                events += transcript.text(piece)
            else:
                call = CallPiece(index=index, name="f" if first else "", arguments=piece)
                events += transcript.call(call, f"call_{index}")
    events += transcript.finish(complete=complete)
    return events, transcript.items


@given(SAID, st.lists(st.integers(0, 6), max_size=4), st.booleans())
def test_events_make_the_items_and_cuts_change_nothing(
    said: list[tuple[str, str]], cuts: list[int], complete: bool
) -> None:
    events, items = run(said, cuts, complete=complete)
    assert rebuilt(events) == items == run(said, [], complete=complete)[1]
    assert [item["status"] for item in items[:-1]] == ["completed"] * (len(items) - 1)
    assert items[-1]["status"] == ("completed" if complete else "incomplete")


@given(SAID)
def test_what_is_added_is_ended_before_the_next(said: list[tuple[str, str]]) -> None:
    """One item and one part at a time; what ends says all of it."""
    events, _ = run(said, [2], complete=True)
    opened: list[str] = []
    for event in events:
        kind = event["type"]
        if kind.endswith((".added",)):
            opened.append(kind)
        elif kind in ("response.output_item.done", "response.content_part.done"):
            assert opened.pop() == kind.replace("done", "added")
        assert opened.count("response.output_item.added") <= 1
    assert opened == []


def test_a_call_is_told_by_its_name_its_arguments_and_their_end() -> None:
    events, items = run([("reasoning", "hm"), ("call", '{"a":1}')], [3], complete=True)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "output_item.added",
        "content_part.added",
        "reasoning.delta",
        "reasoning.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert items[1] == {
        "type": "function_call",
        "id": "fc_r_1",
        "status": "completed",
        "call_id": "call_0",
        "name": "f",
        "arguments": '{"a":1}',
    }


def test_an_answer_that_says_nothing_is_an_empty_message() -> None:
    events, items = run([], [], complete=True)
    assert rebuilt(events) == items
    assert [part["text"] for part in items[0]["content"]] == [""]
