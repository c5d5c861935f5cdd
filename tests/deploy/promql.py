"""Which metrics and labels a PromQL expression names, as far as launch/monitoring writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

FUNCTIONS = {
    "absent",
    "histogram_quantile",
    "increase",
    "max",
    "rate",
    "sum",
    "vector",
}
WORDS = {"and", "or", "by", "on", "group_left"}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"([a-z_:][\w:]*)\s*(\{[^}]*\})?")
_MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*")
_GROUPING = re.compile(r"\b(?:by|on|group_left)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True)
class Named:
    """Metrics with the labels that their selectors match on, and labels of groupings."""

    metrics: dict[str, frozenset[str]]
    groupings: frozenset[str]


def names(expr: str) -> Named:
    """ValueError for a word that is no metric, and no function that is known here."""
    plain = _RANGE.sub("", _STRING.sub('""', expr))
    groupings = [label.strip() for found in _GROUPING.findall(plain) for label in found.split(",")]
    metrics: dict[str, frozenset[str]] = {}
    for word, matchers in _SELECTOR.findall(_GROUPING.sub("", plain)):
        if word in FUNCTIONS | WORDS:
            continue
        if not word.startswith("epd"):
            raise ValueError(f"{word} in {expr} is no metric of epd and no known function")
        labels = frozenset(label for label, _ in _MATCHER.findall(matchers))
        metrics[word] = metrics.get(word, frozenset()) | labels
    return Named(metrics, frozenset(filter(None, groupings)))
