"""What clients say of an answer's form, as the text of a grammar. Nothing is compiled here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llguidance import LLMatcher

from epd.errors import BadRequest

# What may stand between two parts of JSON: without a bound, a model may go on with spaces for ever.
SPACE = r"[ ]|\n[ \t]{0,40}"


def json_text(schema: dict[str, Any]) -> str:
    """JSON that a schema accepts, in one line or in several.

    BadRequest for a schema with values that JSON does not have, such as infinity.
    """
    try:
        return LLMatcher.grammar_from_json_schema(json.dumps(schema), {"whitespace_pattern": SPACE})
    except ValueError as error:
        raise BadRequest(f"the answer's form: {error}", code="grammar") from None


def regex_text(pattern: str) -> str:
    """Text that a regular expression matches as a whole."""
    return LLMatcher.grammar_from_regex(pattern)


def lark_text(grammar: str) -> str:
    """Text of a grammar in Lark's notation, from its rule `start`."""
    return LLMatcher.grammar_from_lark(grammar)


def any_of(choices: Sequence[str]) -> str:
    """One of these texts."""
    return lark_text(f"start: {' | '.join(map(json.dumps, choices))}")
