"""A process that tries grammars, so that one which takes for ever or all memory harms nobody.

The kernel ends it when a grammar takes too much of the processor's time: that is counted alike on a
machine that is busy with other things, and goes on where the parent is gone.
"""

from __future__ import annotations

import math
import random
import resource
import sys
import time
from contextlib import suppress

from epd.errors import BadRequest
from epd.grammar.compiled import Grammars
from epd.grammar.frames import read_frame, write_frame

MOST_MEMORY = 4 << 30
_STEPS = 24  # tokens of an answer that are tried


def main() -> None:
    """Until the parent closes the pipe."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    with suppress(EOFError):
        told = read_frame(sys.stdin.buffer)
        grammars = Grammars(
            lambda: str(told["tokenizer"]),
            vocab_size=told["vocab_size"],
            eos_token_ids=told["eos_token_ids"],
        )
        if grammars.eos_token_ids:
            grammars.load()
        write_frame(sys.stdout.buffer, {"ready": True})
        while True:
            asked = read_frame(sys.stdin.buffer)
            _limit_time(told["timeout_s"])
            write_frame(sys.stdout.buffer, {"refusal": refusal_of(grammars, asked["grammar"])})


def _limit_time(seconds: float) -> None:
    """From here on; the kernel counts whole seconds."""
    limit = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


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
    main()
