"""Clusters whose workers have a card: rows and KV stay in its memory, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
import torch

from tests.cluster.cases import CASES, Client
from tests.cluster.expected import Expected
from tests.cluster.running import Cluster

pytestmark = [pytest.mark.gpu, pytest.mark.simulated]

FEW = ("device=cuda", "language.max_running=2", "language.max_step_tokens=128")

EPD = {"engine-0.encode": {"engine-0": "in process"}, "engine-0": {}}


def apart(kv: str) -> dict[str, dict[str, str]]:
    """KV goes that way, rows through the GPU's memory."""
    return {"encode-0": {"prefill-0": "cuda_ipc"}, "prefill-0": {"decode-0": kv}, "decode-0": {}}


@contextmanager
def running(path: Path, topology: str, *settings: str) -> Iterator[Cluster]:
    """It ends whatever happens, and ends well."""
    cluster = Cluster(path, topology, *FEW, *settings)
    try:
        yield cluster
    finally:
        code = cluster.stop()
    assert code == 0


@pytest.mark.parametrize(
    ("family", "topology", "placed", "ways"),
    [
        pytest.param("qwen3_vl", "EPD", (), EPD, id="EPD"),
        pytest.param(
            "qwen2_5_vl",
            "1E1P1D",
            ("encode.devices=[cuda:1]", "prefill.devices=[cuda:0]", "decode.devices=[cuda:1]"),
            apart("cuda_ipc"),
            id="on two cards",
        ),
        pytest.param(
            "qwen2_5_vl",
            "1E1P1D",
            ("prefill.tp=2", "decode.tp=2"),
            apart("cuda_ipc, 2 ranks each their own"),
            id="on two ranks each",
        ),
        pytest.param(
            "qwen3_vl",
            "1E1P1D",
            ("decode.tp=2",),
            apart("cuda_ipc"),
            id="decode on two ranks",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_answers_equal_generate(
    family: str,
    topology: str,
    placed: tuple[str, ...],
    ways: dict[str, dict[str, str]],
    path_of: Callable[[str], Path],
    expected_of: Callable[[str], Expected],
) -> None:
    if placed and torch.cuda.device_count() < 2:
        pytest.skip("there is one card")
    settings = [f"placement.{each}" for each in placed]
    with running(path_of(family), topology, *settings) as cluster:
        with closing(Client(cluster)) as client:
            for num in (0, 2):
                case = CASES[f"{num} pictures"]
                assert client.ask(case.asked()) == expected_of(family).answer(case)
        workers = httpx.get(f"{cluster.url}/cluster", timeout=30).json()["workers"]
    assert {each["name"]: each["transfers"] for each in workers} == ways
    assert all(each["device"] != "cpu" for each in workers)
    told = [line for line in cluster.log if "not recorded" in line or "simulated card" in line]
    assert not told
