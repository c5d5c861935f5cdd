"""Texts of about so many tokens, of words that most tokenizers have whole."""

from __future__ import annotations

import random
from dataclasses import dataclass

COMMON = """
the of and to in is that it was for on are as with his they at be this have from or one had by
word but not what all were we when your can said there use an each which she do how their if
will up other about out many then them these so some her would make like him into time has look
two more write go see number no way could people my than first water been call who oil its now
find long down day did get come made may part over new sound take only little work know place
year live me back give most very after thing our just name good man think say great where help
through much before line right too mean old any same tell boy follow came want show also around
form three small set put end does another well large must big even such because turn here why
ask went men read need land home us move try kind hand picture again change off play air away
animal house point page letter mother answer found study still learn should world high every
near add food between own below country plant last school father keep tree never start city
earth eye light thought head under story saw left few while along might close seem next hard
open begin life always those both paper together got group often run""
"""
WORDS = tuple(COMMON.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How a server counts: tokens per word of texts like these.

    `per_picture`: tokens of one picture of the size that a data set has; None where that does not
    matter.
    """

    per_word: float = 1.0
    per_picture: float | None = None

    def words(self, num_tokens: float) -> int:
        """At least one."""
        return max(1, round(num_tokens / self.per_word))

    def tokens(self, text: str) -> int:
        """Of a text of plain English, about."""
        return round(len(text.split()) * self.per_word)


def text(rng: random.Random, num_words: int) -> str:
    """No two alike but by a chance that nobody will see."""
    return " ".join(rng.choices(WORDS, k=num_words))
