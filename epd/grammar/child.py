"""A process that tries grammars, so that one which takes for ever or all memory harms nobody."""

from __future__ import annotations

import random
from typing import Any

from epd.errors import BadRequest
from epd.grammar.answering import Answer, answer_questions
from epd.grammar.compiled import Grammars

MOST_MEMORY = 4 << 30
_STEPS = 24  # tokens of an answer that are tried


def start(told: dict[str, Any]) -> Answer:
    """The vocabulary is loaded before the first grammar comes."""
    grammars = Grammars(
        lambda: str(told["tokenizer"]),
        vocab_size=told["vocab_size"],
        eos_token_ids=told["eos_token_ids"],
    )
    if grammars.eos_token_ids:
        grammars.load()
    return lambda asked: {"refusal": refusal_of(grammars, asked["grammar"])}


def refusal_of(grammars: Grammars, grammar: str) -> str:
    """Why this grammar is not taken; "" where it is: some answer was followed without a fault."""
    chance = random.Random(len(grammar))
    try:
        guide = grammars.guide(grammar)
        for _ in range(_STEPS):
            token = _any_of(guide.mask(), chance)
            if token is None:
                return "the answer's form: no text has it"
            if token in grammars.eos_token_ids:
                break
            guide.accept((token,))
    except BadRequest as error:
        return error.message
    return ""


def _any_of(mask: bytes, chance: random.Random) -> int | None:
    """One of its bits; None where none is set."""
    bits = int.from_bytes(mask, "little")
    if not bits:
        return None
    first = chance.randrange(bits.bit_length())
    rest = bits >> first
    return first + (rest & -rest).bit_length() - 1


if __name__ == "__main__":
    answer_questions(start, most_bytes=MOST_MEMORY)
