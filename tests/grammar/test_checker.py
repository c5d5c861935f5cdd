"""Grammars are tried in a process of their own: what is taken, what is not, what hangs or dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from epd.errors import BadRequest
from epd.grammar import Checker, any_of, json_text, lark_text, regex_text
from epd.types import MAX_GRAMMAR_BYTES
from tests.grammar.vocabulary import VOCAB, eos, tokenizer

HANGS = json_text(
    {"allOf": [{"type": "string", "pattern": f"a.*{chr(97 + n)}.*b{n}"} for n in range(26)]}
)


@pytest.fixture
def checker() -> Iterator[Checker]:
    made = Checker(
        lambda: str(tokenizer().backend_tokenizer.to_str()),
        vocab_size=VOCAB,
        eos_token_ids=[eos()],
        timeout_s=2.0,
    )
    yield made
    made.close()


def refused(checker: Checker, grammar: str) -> str:
    with pytest.raises(BadRequest) as found:
        checker.check(grammar)
    assert found.value.code == "grammar"
    return found.value.message


def test_good_grammars_are_taken_and_bad_ones_refused_with_the_reason(checker: Checker) -> None:
    for good in (any_of(["a", "b"]), json_text({"type": "object"}), regex_text("[a-z]+")):
        checker.check(good)
    assert "unclosed group" in refused(checker, regex_text("(a"))
    assert "missing" in refused(checker, lark_text("start: missing"))


def test_a_form_that_has_too_many_ways_to_go_on_is_refused_before_it_is_used(
    checker: Checker,
) -> None:
    names = {f"p{number}": {"type": "string"} for number in range(2500)}
    assert "items" in refused(checker, json_text({"type": "object", "properties": names}))


def test_a_grammar_that_takes_for_ever_is_given_up_and_remembered(checker: Checker) -> None:
    assert "longer than 2 s" in refused(checker, HANGS)
    before = time.monotonic()
    assert "longer than 2 s" in refused(checker, HANGS)
    assert time.monotonic() - before < 1.0
    checker.check(any_of(["a"]))


def test_a_large_grammar_is_refused_unread(checker: Checker) -> None:
    assert "larger than" in refused(checker, "x" * (MAX_GRAMMAR_BYTES + 1))
    assert checker._process._process is None


def test_a_process_that_died_between_two_grammars_is_replaced(checker: Checker) -> None:
    checker.check(any_of(["a"]))
    process = checker._process._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    checker.check(any_of(["b"]))


def test_a_form_that_no_text_has_is_refused(checker: Checker) -> None:
    refused(checker, json_text({"type": "string", "enum": []}))
