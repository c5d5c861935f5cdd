"""Grammars of a small vocabulary: what may come, what is refused, and what is built anew."""

from __future__ import annotations

import random

import pytest

from epd.errors import BadRequest
from epd.grammar import Grammars, any_of, json_text, lark_text, no_grammars, regex_text
from tests.grammar.vocabulary import allowed, eos, grammars, ids, text


def test_only_the_beginnings_of_a_choice_may_come_and_the_end_after_it() -> None:
    guide = grammars().guide(any_of(["red", "green"]))
    assert {text([token])[0] for token in allowed(guide.mask())} == {"r", "g"}
    guide.accept(ids("red"))
    assert allowed(guide.mask()) == {eos()}


def test_a_guide_built_from_tokens_is_where_the_one_that_followed_them_is() -> None:
    """Decode has it after the hand-off, and any worker after a failure."""
    grammar = json_text({"type": "array", "items": {"type": "boolean"}, "minItems": 30})
    followed, chance = grammars().guide(grammar), random.Random(3)
    tokens: list[int] = []
    for _ in range(20):
        mask = followed.mask()
        assert grammars().guide(grammar, tokens).mask() == mask
        tokens.append(chance.choice(sorted(allowed(mask) - {eos()})))
        followed.accept(tokens[-1:])


def test_guides_of_one_grammar_do_not_move_each_other() -> None:
    first, second = (grammars().guide(regex_text("[ab]c")) for _ in range(2))
    before = second.mask()
    first.accept(ids("a"))
    assert first.mask() != before
    assert second.mask() == before


def test_a_quote_in_a_choice_is_text() -> None:
    guide = grammars().guide(any_of(['a" | "b', "\\n\n"]))
    guide.accept(ids('a" | "b'))
    assert allowed(guide.mask()) == {eos()}


@pytest.mark.parametrize(
    "grammar",
    [
        regex_text("(a"),
        regex_text("(?=a)b"),
        json_text({"type": "foo"}),
        json_text({"not": {"const": "a"}}),
        json_text({"$ref": "http://127.0.0.1:1/schema"}),
        json_text({"enum": [f"{number:200}" for number in range(2000)]} | {"type": "array"}),
        lark_text("start: missing"),
        "{}",
        "",
    ],
)
def test_what_is_no_grammar_is_refused_in_a_line(grammar: str) -> None:
    with pytest.raises(BadRequest) as refused:
        grammars().guide(grammar)
    assert refused.value.code == "grammar"
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 400


def test_a_token_that_may_not_come_ends_the_guide() -> None:
    guide = grammars().guide(any_of(["red"]))
    with pytest.raises(BadRequest):
        guide.accept(ids("blue"))


def test_a_model_without_an_end_has_no_grammars() -> None:
    for without in (no_grammars(), Grammars(str, vocab_size=9, eos_token_ids=())):
        with pytest.raises(BadRequest, match="no token that ends"):
            without.guide(any_of(["a"]))


def test_json_may_have_lines_and_no_endless_space() -> None:
    """A model that likes spaces would go on with them to its last token."""
    grammar = json_text({"type": "object", "properties": {"a": {"type": "integer"}}})
    for fine in ('{"a":1}', '{"a": 1}', '{\n\t"a": 1\n}', '{\n    "a": 1\n}'):
        guide = grammars().guide(grammar)
        guide.accept(ids(fine))
        assert allowed(guide.mask()) == {eos()}
    with pytest.raises(BadRequest):
        grammars().guide(grammar).accept(ids("{\n" + 100 * " "))


def test_a_schema_with_what_json_does_not_have_is_refused() -> None:
    for odd in (float("nan"), "\ud800"):
        with pytest.raises(BadRequest):
            grammars().guide(json_text({"const": odd}))
