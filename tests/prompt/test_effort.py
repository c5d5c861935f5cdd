"""How much is to be thought: what becomes of it for templates that know more or less of it."""

from __future__ import annotations

from typing import Any

import pytest

from epd.errors import BadRequest
from epd.prompt.effort import with_effort


@pytest.mark.parametrize(
    ("effort", "reads", "reasons", "said"),
    [
        (None, {"reasoning_effort", "enable_thinking"}, True, {}),
        ("low", {"reasoning_effort"}, True, {"reasoning_effort": "low"}),
        ("none", {"enable_thinking"}, True, {"enable_thinking": False}),
        ("low", {"enable_thinking"}, True, {"enable_thinking": True}),
        ("high", {"thinking", "tools"}, True, {"thinking": True}),
        (
            "none",
            {"reasoning_effort", "enable_thinking"},
            True,
            {"reasoning_effort": "none", "enable_thinking": False},
        ),
        ("none", {"tools"}, False, {}),
    ],
)
def test_an_effort_is_what_the_template_reads_of_it(
    effort: str | None, reads: set[str], reasons: bool, said: dict[str, Any]
) -> None:
    assert with_effort({"x": 1}, effort, reads, reasons=reasons) == {"x": 1, **said}


@pytest.mark.parametrize(("effort", "reasons"), [("low", True), ("low", False), ("none", True)])
def test_an_effort_that_would_change_nothing_is_refused(effort: str, reasons: bool) -> None:
    """Nobody can tell a model not to think whose template has no word for that."""
    with pytest.raises(BadRequest, match="reads neither it nor enable_thinking") as caught:
        with_effort({}, effort, {"tools"}, reasons=reasons)
    assert caught.value.param == "reasoning_effort"


def test_two_words_for_one_thing_have_to_agree() -> None:
    switch = {"enable_thinking": False}
    assert with_effort(switch, "none", {"enable_thinking"}, reasons=True) == switch
    with pytest.raises(BadRequest, match="chat_template_kwargs.enable_thinking; give one"):
        with_effort(switch, "low", {"enable_thinking"}, reasons=True)
