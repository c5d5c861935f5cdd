"""The results' page: made of the file, but for its last section, which a person writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers.rows import Line
from bench.peers.table import commands, table

LAST = "## What stands in the way"
HEAD = """\
# Other servers with the same checkpoint on this machine

How fast are epd, vLLM's third-party build for CPUs and `transformers serve` with one checkpoint on
two cores? {answer}

    make bench-peers

Commit {commit}. Half a billion random weights in bfloat16: the text half has the shape of
Qwen2.5-0.5B, under a 12-layer Qwen2.5-VL tower. Pictures are 224x224, 64 tokens each. One server
runs at a time, in two rounds, the second in the order turned round; all get the same requests
through the generator of `epd bench`. Prompts and pictures are new but where the row says otherwise,
prefix caches are off, and every answer has exactly the tokens that were asked for. *float32* and
*bfloat16* are what a peer computes in; epd computes in bfloat16. Times are medians, but means of
ten requests where pictures come again.

## Machine

{machine}

## Table

{table}

Bold are our best and the best peer, whose ratio it is; *alike* is the same against peers in
bfloat16. `transformers serve` answers one request at a time: texts beside pictures wait for their
turn, which their time per token does not show, so it is no peer in that row.

## Commands

{commands}

"""


def write_page(path: Path, facts: Mapping[str, Any], found: Sequence[Line]) -> None:
    """Keeps what the file has from its last heading on."""
    before = path.read_text() if path.is_file() else ""
    kept = LAST + before.partition(LAST)[2] if LAST in before else f"{LAST}\n"
    path.write_text(page(facts, found) + kept)


def page(facts: Mapping[str, Any], found: Sequence[Line]) -> str:
    """All but the last section."""
    known = [line for line in found if line.ratio is not None]
    reached = sum(line.reached for line in known)
    return HEAD.format(
        answer=f"{reached} of {len(known)} targets are reached against the best peer of each row.",
        commit=str(facts["commit"])[:7],
        machine=_machine(facts),
        table=table(found),
        commands=commands(facts["servers"]),
    )


def _machine(facts: Mapping[str, Any]) -> str:
    hardware, ours = facts["hardware"], facts["versions"]
    flags = hardware["flags"]
    missing = [name for name in ("avx512_bf16", "amx_bf16") if name not in flags]
    lines = [
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB"
        + (f", without {' and '.join(missing)}." if missing else "."),
        f"Python {ours['python']}, torch {ours['torch']}, transformers {ours['transformers']}.",
    ]
    for name, server in facts["servers"].items():
        if versions := server.get("versions"):
            said = ", ".join(f"{key} {value}" for key, value in versions.items())
            lines.append(f"{name}: {said}.")
    return "  \n".join(lines)
