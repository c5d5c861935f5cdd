"""How people put a question besides what it says: small letters, lead-ins, missing words."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

ASKED = (
    *("Hi, ", "Hello, ", "Please: ", "So, ", "Hey, ", "OK, ", "And ", "Now: ", "Well, "),
    *("Question: ", "Tell me: ", "I wonder: ", "One more thing: ", "Look closely. ", "Quick: "),
    *("Please tell me: ", "I would like to know: ", "Can you tell me: ", "Answer this: "),
)
TOLD = (
    *("Please ", "Now ", "Can you ", "Could you ", "Could you please ", "Would you please "),
    *("Will you ", "I want you to ", "I would like you to ", "Hi, please ", "Just ", "Kindly "),
)
ENDS = (", please?", " now?", " then?", " please", " for me?", ", can you tell?", " exactly?")
SMALL = ("the", "is", "in", "do", "of", "are", "does", "this", "there", "you", "a", "an", "me")
ALIKE = (
    ("image", "picture"),
    ("image", "photo"),
    ("picture", "photo"),
    ("video", "clip"),
    ("audio", "recording"),
    ("What is", "What's"),
    ("Where is", "Where's"),
    ("Which", "What"),
    ("Tell me", "Say"),
    ("can", "could"),
)
_ORDERS = (
    *("Describe", "Tell", "Say", "Name", "Count", "Compare", "Find", "Locate", "List", "Give"),
    *("Explain", "Look", "Listen", "Identify", "Watch", "Check", "Write", "Summarize"),
)


def styled(question: str, rng: random.Random) -> str:
    """Mostly as it is. Names to fill in, in "<" and ">", stay."""
    for chance, change in _CHANGES:
        if rng.random() < chance:
            question = change(question, rng)
    return question


def _another_word(question: str, rng: random.Random) -> str:
    one, other = rng.choice(ALIKE)
    if rng.random() < 0.5:
        one, other = other, one
    return re.sub(rf"\b{one}\b", other, question)


def _without_a_word(question: str, rng: random.Random) -> str:
    words = question.split(" ")
    small = [i for i, word in enumerate(words) if i and word in SMALL]
    if small and len(words) > 3:
        del words[rng.choice(small)]
    return " ".join(words)


def _led_in(question: str, rng: random.Random) -> str:
    if not question.startswith(_ORDERS):
        return rng.choice(ASKED) + question
    lead = rng.choice(TOLD)
    end = "?" if lead.startswith(("Can", "Could", "Would", "Will")) else "."
    return lead + question[0].lower() + question[1:].rstrip("?.") + end


def _ended(question: str, rng: random.Random) -> str:
    return question.rstrip("?.") + rng.choice(ENDS)


def _bare(question: str, rng: random.Random) -> str:
    return question.rstrip("?.")


def _small(question: str, rng: random.Random) -> str:
    return question.lower()


_CHANGES: tuple[tuple[float, Callable[[str, random.Random], str]], ...] = (
    (0.12, _another_word),
    (0.06, _without_a_word),
    (0.12, _led_in),
    (0.04, _ended),
    (0.12, _bare),
    (0.15, _small),
)
