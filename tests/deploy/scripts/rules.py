"""Run by .venvs/deploy: rules.py RULES, with a promtool test file as JSON on stdin.

Evaluates the rules over the test's series, step by step, and prints a JSON list of
[place, expected, found] for every expression that does not say what the test expects. It computes
the part of PromQL that the rules use; whatever else there is in an expression is an error. Rates
are taken between the first and the last sample of a window, without extrapolation.
"""

from __future__ import annotations

import json
import math
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]

STALE_S = 300
NAME = "__name__"
NOTATION = re.compile(r"(_|-?[\d.]+)(?:([+-][\d.]+))?(?:x(\d+))?")
OPERATORS: dict[str, Callable[[float, float], float]] = {
    "*": operator.mul,
    "/": lambda a, b: a / b if b else math.nan,
    "+": operator.add,
    "-": operator.sub,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}


def seconds(text: str) -> float:
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


class Store:
    """Samples by series, each with its time in seconds."""

    def __init__(self) -> None:
        self.series: dict[Labels, list[tuple[float, float]]] = {}

    def add(self, labels: Mapping[str, str], at: float, value: float) -> None:
        self.series.setdefault(frozenset(labels.items()), []).append((at, value))

    def select(self, selector: Any) -> dict[Labels, list[tuple[float, float]]]:
        wanted = [(NAME, "Equal", selector.name)]
        for one in selector.matchers.matchers:
            wanted.append((one.name, str(one.op).rpartition(".")[2], one.value))
        return {key: all_ for key, all_ in self.series.items() if matches(dict(key), wanted)}


def matches(labels: dict[str, str], wanted: Iterable[tuple[str, str, str]]) -> bool:
    for name, kind, value in wanted:
        has = labels.get(name, "")
        equal = has == value if kind in ("Equal", "NotEqual") else bool(re.fullmatch(value, has))
        if equal == kind.startswith("Not"):
            return False
    return True


def bare(labels: Labels) -> Labels:
    return frozenset((key, value) for key, value in labels if key != NAME)


def evaluate(tree: Any, store: Store, now: float) -> Vector:
    if isinstance(tree, promql.ParenExpr):
        return evaluate(tree.expr, store, now)
    if isinstance(tree, promql.VectorSelector):
        return instant(tree, store, now)
    if isinstance(tree, promql.AggregateExpr):
        return aggregate(tree, store, now)
    if isinstance(tree, promql.Call):
        return call(tree, store, now)
    if isinstance(tree, promql.BinaryExpr):
        return binary(tree, store, now)
    raise ValueError(f"{type(tree).__name__} is not known here")


def instant(tree: Any, store: Store, now: float) -> Vector:
    found = {}
    for labels, samples in store.select(tree).items():
        recent = [value for at, value in samples if now - STALE_S < at <= now]
        if recent:
            found[labels] = recent[-1]
    return found


def call(tree: Any, store: Store, now: float) -> Vector:
    name, arguments = tree.func.name, tree.args
    if name in ("rate", "increase"):
        return over(arguments[0], store, now, per_second=name == "rate")
    if name == "vector":
        return {frozenset(): float(arguments[0].val)}
    if name == "absent":
        return {} if evaluate(arguments[0], store, now) else {frozenset(): 1.0}
    if name == "histogram_quantile":
        return quantile(float(arguments[0].val), evaluate(arguments[1], store, now))
    raise ValueError(f"{name}() is not known here")


def over(tree: Any, store: Store, now: float, *, per_second: bool) -> Vector:
    window = tree.range.total_seconds()
    found = {}
    for labels, samples in store.select(tree.vector_selector).items():
        inside = [(at, value) for at, value in samples if now - window <= at <= now]
        if len(inside) < 2:
            continue
        grown = sum(max(0.0, b - a) for (_, a), (_, b) in pairwise(inside))
        rate = grown / (inside[-1][0] - inside[0][0])
        found[bare(labels)] = rate if per_second else rate * window
    return found


def quantile(share: float, buckets: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in buckets.items():
        inner = dict(labels)
        groups.setdefault(frozenset((inner | {"le": ""}).items()), []).append(
            (float(inner["le"].replace("+Inf", "inf")), value)
        )
    found = {}
    for labels, counts in groups.items():
        counts.sort()
        rank = share * counts[-1][1]
        below, lower = 0.0, 0.0
        for bound, count in counts:
            if count >= rank and count > 0:
                inside = (rank - below) / (count - below) if count > below else 1.0
                value = lower if math.isinf(bound) else lower + (bound - lower) * inside
                found[frozenset(pair for pair in labels if pair[0] != "le")] = value
                break
            below, lower = count, bound
    return found


def aggregate(tree: Any, store: Store, now: float) -> Vector:
    kept = set(tree.modifier.labels) if tree.modifier is not None else set()
    groups: dict[Labels, list[float]] = {}
    for labels, value in evaluate(tree.expr, store, now).items():
        group = frozenset(pair for pair in labels if pair[0] in kept)
        groups.setdefault(group, []).append(value)
    if str(tree.op) == "sum":
        return {group: math.fsum(values) for group, values in groups.items()}
    if str(tree.op) == "max":
        return {group: max(values) for group, values in groups.items()}
    raise ValueError(f"{tree.op} is not known here")


def binary(tree: Any, store: Store, now: float) -> Vector:
    """One vector at least; a number stands for itself beside every sample."""
    name = str(tree.op)
    chosen = tree.modifier.matching if tree.modifier is not None else None
    on = None if chosen is None else set(chosen.labels)

    def key(labels: Labels) -> Labels:
        plain = bare(labels)
        return plain if on is None else frozenset(pair for pair in plain if pair[0] in on)

    left = evaluate(tree.lhs, store, now)
    if isinstance(tree.rhs, promql.NumberLiteral):
        pairs = [(labels, value, float(tree.rhs.val)) for labels, value in left.items()]
    else:
        right = evaluate(tree.rhs, store, now)
        if name in ("and", "or"):
            return together(name, left, right, key)
        pairs = [
            (labels, value, other)
            for labels, value in left.items()
            for others, other in right.items()
            if key(labels) == key(others)
        ]
    if name in OPERATORS:
        return {bare(labels): OPERATORS[name](a, b) for labels, a, b in pairs}
    return {labels: a for labels, a, b in pairs if COMPARISONS[name](a, b)}


def together(name: str, left: Vector, right: Vector, key: Callable[[Labels], Labels]) -> Vector:
    if name == "and":
        known = {key(labels) for labels in right}
        return {labels: value for labels, value in left.items() if key(labels) in known}
    known = {key(labels) for labels in left}
    return {**left, **{labels: v for labels, v in right.items() if key(labels) not in known}}


def series(text: str) -> tuple[dict[str, str], Any]:
    selector = promql.parse(text)
    labels = {one.name: one.value for one in selector.matchers.matchers}
    return {NAME: selector.name, **labels}, selector


def samples(text: str) -> list[float | None]:
    """promtool's notation: `1 2`, `0+5x10`, `3x4`, `_x5`."""
    found: list[float | None] = []
    for part in text.split():
        written = NOTATION.fullmatch(part)
        if written is None:
            raise ValueError(f"{part} is no notation of samples")
        start, step, times = written.groups()
        for index in range(int(times or 0) + (start != "_" or not times)):
            found.append(None if start == "_" else float(start) + index * float(step or 0))
    return found


class Run:
    """The rules of a file over the series of one test."""

    def __init__(self, groups: list[dict[str, Any]], test: dict[str, Any]) -> None:
        self.rules = [rule for group in groups for rule in group["rules"]]
        self.trees = {id(rule): promql.parse(rule["expr"]) for rule in self.rules}
        self.store = Store()
        self.since: dict[tuple[str, Labels], float] = {}
        self.every = seconds(test["interval"])
        self.given = [(series(s["series"])[0], samples(s["values"])) for s in test["input_series"]]

    def until(self, end: float) -> None:
        for step in range(int(end / self.every) + 1):
            now = step * self.every
            for labels, values in self.given:
                value = values[step] if step < len(values) else None
                if value is not None:
                    self.store.add(labels, now, value)
            for rule in self.rules:
                self.apply(rule, now)

    def apply(self, rule: dict[str, Any], now: float) -> None:
        value = evaluate(self.trees[id(rule)], self.store, now)
        found = {bare(labels): one for labels, one in value.items()}
        if "record" in rule:
            for labels, one in found.items():
                self.store.add({NAME: rule["record"], **dict(labels)}, now, one)
            return
        name = rule["alert"]
        self.since = {
            key: at for key, at in self.since.items() if key[0] != name or key[1] in found
        }
        for labels in found:
            began = self.since.setdefault((name, labels), now)
            state = "firing" if now - began >= seconds(rule["for"]) else "pending"
            labels_ = dict(labels) | rule["labels"] | {"alertname": name, "alertstate": state}
            self.store.add({NAME: "ALERTS", **labels_}, now, 1.0)


def main() -> None:
    groups = yaml.safe_load(Path(sys.argv[1]).read_text())["groups"]
    wrong = []
    for test in json.load(sys.stdin)["tests"]:
        for case in test["promql_expr_test"]:
            at = seconds(case["eval_time"])
            run = Run(groups, test)
            run.until(at)
            found = evaluate(promql.parse(case["expr"]), run.store, at)
            shown = sorted((sorted(labels), round(one, 6)) for labels, one in found.items())
            expected = sorted(
                (sorted(labels_of(one["labels"]).items()), one["value"])
                for one in case["exp_samples"]
            )
            if json.dumps(shown) != json.dumps(expected):
                wrong.append([f"{test['name']}: {case['expr']}", expected, shown])
    sys.stdout.write(json.dumps(wrong))


def labels_of(text: str) -> dict[str, str]:
    return {} if text == "{}" else series(text)[0]


if __name__ == "__main__":
    main()
