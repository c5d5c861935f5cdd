"""What text means beside plain words: reasoning and tool calls, read as it comes. Pure."""

from epd.prompt.calls.form import PLAIN, AnswerForm, calls_tools, opens_reasoning, reasons
from epd.prompt.calls.grammar import Signature, answer_grammar
from epd.prompt.calls.reader import AnswerReader
from epd.prompt.calls.reading import CallPiece, Reading, joined_readings

__all__ = [
    "PLAIN",
    "AnswerForm",
    "AnswerReader",
    "CallPiece",
    "Reading",
    "Signature",
    "answer_grammar",
    "calls_tools",
    "joined_readings",
    "opens_reasoning",
    "reasons",
]
