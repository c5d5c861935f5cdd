"""The table of a comparison, in Markdown. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from bench.peers.rows import Line
from bench.peers.servers import OURS, PEERS


def table(lines: Sequence[Line]) -> str:
    """A line per row: figures by server, our best over the best peer, and the target."""
    names = [name for name in (*OURS, *PEERS) if any(name in line.figures for line in lines)]
    rows = [["", *names, "ratio", "target", "", "alike"]]
    rows.append(["---", *["---:"] * (len(names) + 2), "---", "---:"])
    for line in lines:
        row = line.row
        figures = [_figure(line, name) for name in names]
        ratio, alike = _ratio(line.ratio), _ratio(line.alike)
        sign = "≥" if row.more_is_better else "≤"
        verdict = "" if line.ratio is None else ("reached" if line.reached else "missed")
        judged = [ratio, f"{sign} {row.target}", verdict, alike]
        rows.append([f"{row.name}, {row.unit}", *figures, *judged])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def commands(servers: Mapping[str, Mapping[str, Any]]) -> str:
    """How each was started."""
    found = []
    for name, server in servers.items():
        variables = [f"{key}={value}" for key, value in server["variables"].items()]
        found.append(f"    # {name}\n    {shlex.join([*variables, *server['argv']])}")
    return "\n".join(found)


def _figure(line: Line, name: str) -> str:
    """Bold where it stands in the ratio."""
    value = line.figures.get(name)
    if value is None:
        return ""
    text = f"{value:.0f}" if value >= 100 else f"{value:.1f}"
    return f"**{text}**" if name in (line.ours, line.peer) else text
