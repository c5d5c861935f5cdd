"""Clusters whose workers have a card: rows and KV stay in its memory, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.cluster.cases import CASES, Client
from tests.cluster.expected import Expected
from tests.cluster.running import Cluster

pytestmark = [pytest.mark.gpu, pytest.mark.simulated]

FEW = ("device=cuda", "language.max_running=2", "language.max_step_tokens=128")

WAYS = {
    ("qwen2_5_vl", "1E1P1D"): {
        "encode-0": {"prefill-0": "cuda_ipc"},
        "prefill-0": {"decode-0": "cuda_ipc"},
        "decode-0": {},
    },
    ("qwen3_vl", "EPD"): {"engine-0.encode": {"engine-0": "in process"}, "engine-0": {}},
}


@pytest.mark.parametrize(("family", "topology"), WAYS)
def test_answers_equal_generate(
    family: str,
    topology: str,
    path_of: Callable[[str], Path],
    expected_of: Callable[[str], Expected],
) -> None:
    cluster = Cluster(path_of(family), topology, *FEW)
    client = Client(cluster)
    for num in (0, 2):
        case = CASES[f"{num} pictures"]
        assert client.ask(case.asked()) == expected_of(family).answer(case)
    workers = httpx.get(f"{cluster.url}/cluster", timeout=30).json()["workers"]
    assert {each["name"]: each["transfers"] for each in workers} == WAYS[family, topology]
    assert all(each["device"] != "cpu" for each in workers)
    client.close()
    assert cluster.stop() == 0
    told = [line for line in cluster.log if "not recorded" in line or "simulated card" in line]
    assert not told
