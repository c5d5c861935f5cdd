"""What an answer may look like: grammars compiled for a vocabulary, and their masks. No torch."""

from epd.grammar.answering import Answer, answer_questions
from epd.grammar.bounded import BoundedProcess, Lost
from epd.grammar.checker import Checker
from epd.grammar.compiled import Grammars, Guide, no_grammars
from epd.grammar.texts import any_of, json_text, lark_text, regex_text

__all__ = [
    "Answer",
    "BoundedProcess",
    "Checker",
    "Grammars",
    "Guide",
    "Lost",
    "answer_questions",
    "any_of",
    "json_text",
    "lark_text",
    "no_grammars",
    "regex_text",
]
