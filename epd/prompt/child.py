"""A process that renders templates which requests bring, in transformers' sandbox."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from epd.errors import ConfigError
from epd.grammar import Answer, answer_questions
from epd.prompt.variables import variables_of

MOST_MEMORY = 1 << 30
MOST_CHARACTERS = 1 << 25
"""Of a prompt's text; no model reads so much."""

_REFUSALS = (
    *(TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError, ConfigError),
)


def start(told: dict[str, Any]) -> Answer:
    """There is nothing to be told."""
    return answer


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The variables of a template, or what it makes of a chat; or why that cannot be."""
    source = asked["source"]
    try:
        if "messages" not in asked:
            return {"variables": sorted(variables_of(source))}
        rendered, _ = render_jinja_template(
            [asked["messages"]],
            tools=asked["tools"],
            chat_template=source,
            add_generation_prompt=asked["add_generation_prompt"],
            continue_final_message=asked["continue_final_message"],
            **asked["arguments"],
        )
    except _REFUSALS as error:
        said = str(error)[:1000] or type(error).__name__
        return {"refused": said, "by_value": isinstance(error, ValueError)}
    if len(rendered[0]) > MOST_CHARACTERS:
        said = f"it makes more than {MOST_CHARACTERS} characters of this chat"
        return {"refused": said, "by_value": False}
    return {"text": rendered[0]}


if __name__ == "__main__":
    answer_questions(start, most_bytes=MOST_MEMORY)
