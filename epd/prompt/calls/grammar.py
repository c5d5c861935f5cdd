"""The grammar of answers that may reason, call functions or have a form, as llguidance reads it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epd.prompt.calls.form import CLOSE, END_THINK, OPEN, THINK, AnswerForm

_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
# One way to write white space: a model at a high temperature would go on with it for ever.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A function that may be called. `parameters` is a JSON schema, None if it takes nothing.

    `strict`: a schema of which nothing may be passed over.
    """

    name: str
    parameters: Mapping[str, Any] | None
    strict: bool = False


def answer_grammar(
    form: AnswerForm,
    functions: Sequence[Signature] = (),
    *,
    must_call: bool = False,
    answer: str = "",
    tokens: Collection[str] = (),
) -> str:
    """Of an answer that has to call one of the functions, or may; `answer` is the grammar of its
    text, "" where that is free.

    Every call names a function first, then its arguments, as templates show calls to models.
    Reasoning of any length may stand before all. A mark that is one of the tokenizer's added
    `tokens` is that token, else text.
    """
    if answer and not form.reasoning and not functions:
        return answer
    rules = [f"start: {_thought(form, tokens)} {_said(form, functions, must_call, answer, tokens)}"]
    if form.reasoning:
        rules += _thought_rules(tokens)
    if functions:
        rules += _block_rules(functions, tokens)
    lark = "\n".join(rules)
    return lark if must_call or not answer else _with_answer(lark, answer)


def _said(
    form: AnswerForm,
    functions: Sequence[Signature],
    must_call: bool,
    answer: str,
    tokens: Collection[str],
) -> str:
    """What follows the reasoning."""
    blocks = r'block ("\n" block)*' if form.parallel else "block"
    if must_call:
        return blocks
    if answer:
        return f"(@answer | {blocks})" if functions else "@answer"
    if OPEN in tokens:
        return f"text ({OPEN} call_block text)" + ("*" if form.parallel else "?")
    return "(opening call_block)" + ("* text" if form.parallel else "| text")


def _thought(form: AnswerForm, tokens: Collection[str]) -> str:
    if not form.reasoning:
        return ""
    return "thought gap" if form.begun else f"({_mark(THINK, tokens)} thought gap)?"


def _thought_rules(tokens: Collection[str]) -> list[str]:
    gap = r"gap: /[ \t\r\n]{0,4}/"
    if END_THINK in tokens:
        return [f"thought: /(?s:.*)/ {END_THINK}", gap]
    return [f"thought[suffix={_text(END_THINK)}]: /(?s:.*)/", gap]


def _block_rules(functions: Sequence[Signature], tokens: Collection[str]) -> list[str]:
    return [
        "text: /(?s:.*)/",
        f"opening[lazy]: /(?s:.*){OPEN}/",
        f"block: {_mark(OPEN, tokens)} call_block",
        f'call_block: "\\n" call "\\n" {_mark(CLOSE, tokens)}',
        "call: " + " | ".join(f"call_{i}" for i in range(len(functions))),
        *(rule for i, function in enumerate(functions) for rule in _call_rules(i, function)),
    ]


def _call_rules(index: int, function: Signature) -> list[str]:
    head = f'{{"name": {json.dumps(function.name)}, "arguments": '
    schema = _NO_PARAMETERS if function.parameters is None else function.parameters
    # An object, whatever else the schema says.
    options = {**_SPACING, "lenient": not function.strict}
    written = json.dumps({**schema, "type": "object", "x-guidance": options})
    return [
        f"call_{index}: {_text(head)} arguments_{index} {_text('}')}",
        f"arguments_{index}: %json {written}",
    ]


def _with_answer(lark: str, answer: str) -> str:
    """Both in one text; the answer's grammar is Lark, or a JSON object with grammars in it."""
    try:
        first, *others = json.loads(answer)["grammars"]
        named = {**first, "name": "answer"}
    except (ValueError, TypeError, LookupError, RecursionError):
        named, others = {"lark_grammar": answer, "name": "answer"}, []
    return json.dumps({"grammars": [{"lark_grammar": lark}, named, *others]})


def _mark(mark: str, tokens: Collection[str]) -> str:
    return mark if mark in tokens else _text(mark)


def _text(literal: str) -> str:
    """A string of Lark's."""
    return json.dumps(literal)
