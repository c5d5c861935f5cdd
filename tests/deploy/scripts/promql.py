"""Run by .venvs/deploy, with a JSON object of place to expression on stdin.

Prints a JSON object: what Prometheus' own grammar says is wrong, by place, and which metrics each
expression reads, for comparison with what the tests read out of it.
"""

from __future__ import annotations

import json
import sys

import promql_parser


def main() -> None:
    wrong, metrics = {}, {}
    for place, expr in json.load(sys.stdin).items():
        try:
            tree = promql_parser.parse(expr.replace("$__rate_interval", "5m"))
        except ValueError as error:
            wrong[place] = str(error)
        else:
            metrics[place] = sorted(set(read(tree)))
    print(json.dumps({"wrong": wrong, "metrics": metrics}))


def read(tree: object) -> list[str]:
    if isinstance(tree, promql_parser.VectorSelector):
        return [str(tree.name)]
    if isinstance(tree, promql_parser.MatrixSelector):
        return read(tree.vector_selector)
    if isinstance(tree, promql_parser.BinaryExpr):
        return read(tree.lhs) + read(tree.rhs)
    if isinstance(tree, promql_parser.Call):
        return [name for one in tree.args for name in read(one)]
    inner = getattr(tree, "expr", None)
    return read(inner) if inner is not None else []


if __name__ == "__main__":
    main()
