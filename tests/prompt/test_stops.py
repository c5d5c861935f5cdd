"""Stop strings, however the text is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from epd.prompt import StopStrings

LETTERS = st.text("ab<|", max_size=12)


def reference(text: str, stops: list[str], shows: bool) -> tuple[str, bool]:
    """Character by character, the slow way."""
    for end in range(1, len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[:end] if shows else text[: end - len(stop)], True
    return text, False


@given(
    st.lists(LETTERS, max_size=8),
    st.lists(st.text("ab<|", min_size=1, max_size=5), max_size=4),
    st.booleans(),
)
def test_pieces_make_no_difference(pieces: list[str], stops: list[str], shows: bool) -> None:
    matcher = StopStrings(stops, shows=shows)
    shown = "".join(matcher.feed(piece) for piece in pieces) + matcher.finish()
    assert (shown, matcher.found is not None) == reference("".join(pieces), stops, shows)


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    matcher = StopStrings(["<end>"])
    assert matcher.feed("one <e") == "one "
    assert matcher.feed("x <en") == "<ex "
    assert matcher.feed("d> two") == ""
    assert matcher.found == "<end>" and matcher.feed("three") == matcher.finish() == ""


def test_a_stop_string_that_is_shown_is_the_end() -> None:
    matcher = StopStrings(["<end>"], shows=True)
    assert matcher.feed("one <en") == "one "
    assert matcher.feed("d> two") == "<end>"
    assert matcher.feed("three") == matcher.finish() == ""


def test_without_stop_strings_nothing_is_held() -> None:
    assert StopStrings([]).feed("abc") == "abc"
