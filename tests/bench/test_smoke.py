"""The whole harness on the tiny checkpoint: processes, requests, table and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import why_not
from tests.programs import said

SECONDS = 240.0


def run(tmp_path: Path, module: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """The JSON object on the last line of stdout, and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--model", "tiny", "--set", "threads=1"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found, done.stderr


@pytest.mark.slow
def test_a_point_is_measured_with_every_token_and_where_the_time_went(tmp_path: Path) -> None:
    arguments = "--topology EPD --concurrency 2 --images 1 --prompt-tokens 48 --max-tokens 5"
    found, said = run(tmp_path, "bench.topologies", *arguments.split(), "--requests", "3")

    (point,) = found["points"]
    assert (point["requests"], point["errors"], point["completion_tokens"]) == (3, 0, [5])
    for record in point["records"]:
        assert sum(num for _, num in record["arrivals"]) == 5
    assert point["stage_seconds"]["encode"]["tower"] > 0
    assert {"hardware", "versions", "commit", "config", "workload"} <= set(found)
    assert "TTFT p50" in said


@pytest.mark.slow
def test_the_second_turn_is_measured_with_and_without_the_prefix_cache(tmp_path: Path) -> None:
    arguments = "--chats 1 --prompt-tokens 100 --max-tokens 5"
    found, said = run(tmp_path, "bench.second_turn", *arguments.split())

    on, off = found["prefix_cache_on"], found["prefix_cache_off"]
    assert [turn["turn"] for turn in on] == [turn["turn"] for turn in off] == [1, 2]
    assert off[1]["kv_bytes"] > off[0]["kv_bytes"] > 0
    assert on[1]["kv_bytes"] < off[1]["kv_bytes"] / 2
    assert "KV bytes sent" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "ways"),
    [("loopback", ["tcp", "shm"]), ("namespaces", ["tcp", "curve"])],
    ids=["one host", "two hosts"],
)
def test_rows_are_sent_through_every_way(network: str, ways: list[str]) -> None:
    """Two processes, no cluster."""
    if network == "namespaces" and (reason := why_not()):
        pytest.skip(reason)
    arguments = f"--network {network} --mib 1 --rounds 2 --ways {' '.join(ways)}"
    done = subprocess.run(
        [sys.executable, "-m", "bench.transfer", *arguments.split()],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout.splitlines()[-1])["points"]
    assert sorted((point["way"], point["mib"]) for point in points) == sorted(
        (way, 1) for way in ways
    )
    assert all(point["rows_bytes_per_s"] > 0 < point["share"] for point in points)


@pytest.mark.slow
def test_zeromq_alone_is_measured_at_every_size() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.transfer.alone"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert "ZeroMQ" in head
    assert [row.split()[0] for row in rows] == ["4", "19", "64", "192"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "bench.overlap --images 2 --tower-s 0.05 --requests 1 --cases all_on all_off",
        "bench.parallel_encode --encoders 1 2 --images 2 --tower-s 0.05 --requests 1",
        "bench.cache_hit --pictures 1 --set threads=1",
        "bench.gateway --clients 2 --tokens 4 --streams 2 --requests 8 --rounds 1",
        "bench.isolation --tower-s 0.05 --before-s 1 --streams 1 --burst 1 --max-tokens 20",
    ],
)
def test_every_benchmark_of_a_cluster_ends_with_one_json_object(
    tmp_path: Path, arguments: str
) -> None:
    module, *rest = arguments.split()
    rest = [{"all_on": "all on", "all_off": "all off"}.get(word, word) for word in rest]
    done = subprocess.run(
        [sys.executable, "-m", module, "--model", "tiny", *rest],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert {"question", "hardware", "workload"} <= set(json.loads(done.stdout.splitlines()[-1]))


def test_a_cluster_that_cannot_start_is_no_result(tmp_path: Path) -> None:
    done = said(["--model", str(tmp_path)], module="bench.topologies")
    assert done.returncode == 2
    assert done.stderr.startswith("bench.topologies: no checkpoint")
    assert done.stdout == ""
