"""Figures of benchmarks that need processes of their own, run small."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from bench.micro.figures import Figure
from bench.serving.cluster import NotMeasured

DECODE = ("bench.intake", "--rounds", "7")
TRANSFER = ("bench.transfer", "--mib", "16", "--rounds", "5", "--ways", "tcp", "shm")
GATEWAY = ("bench.gateway", "--rounds", "3", "--streams", "32", "--requests", "128")
LIMIT_S = 300.0


def figures() -> list[Figure]:
    """Decoding, rows on their way, and streams through the gateway."""
    return [*decoded(_said(*DECODE)), *sent(_said(*TRANSFER)), *streamed(_said(*GATEWAY))]


def decoded(said: Mapping[str, Any]) -> list[Figure]:
    """bench.intake: what comes out per second of one core, both ways."""
    return [
        Figure(
            name=f"decode, {case['case']}",
            unit=str(case["unit"]).removesuffix("s/s"),
            us=1e6 / case["per_core"]["ours"],
            floor=1e6 / case["per_core"]["plain"],
            floor_is="the same libraries in the process that asks",
        )
        for case in said["cases"]
    ]


def sent(said: Mapping[str, Any]) -> list[Figure]:
    """bench.transfer: processor time of both ends."""
    return [
        Figure(
            name=f"transfer, {point['mib']} MiB by {point['way']}",
            unit="MB",
            us=point["rows_cpu_s_per_gb"] * 1e3,
            floor=point["plain_cpu_s_per_gb"] * 1e3,
            floor_is="the same bytes over the same way alone",
        )
        for point in said["points"]
    ]


def streamed(said: Mapping[str, Any]) -> list[Figure]:
    """bench.gateway: the round that took least."""
    found = []
    for case in said["cases"]:
        least = {
            server: min(one["cpu_s"] for one in rounds) for server, rounds in case["rounds"].items()
        }
        per = case["requests"] * case["tokens"] / 1e6
        found.append(
            Figure(
                name=f"gateway, {case['name']}",
                unit="token",
                us=least["gateway"] / per,
                floor=least["bare"] / per,
                floor_is="Starlette and uvicorn with nothing behind them",
            )
        )
    return found


def _said(module: str, *arguments: str) -> dict[str, Any]:
    """The JSON object on the last line."""
    argv = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode != 0:
        raise NotMeasured(f"{module}: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
