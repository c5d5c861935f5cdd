"""One tiny checkpoint and one running cluster per topology, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.checkpoints import build
from tests.cluster.running import Cluster
from tests.reference import Reference

torch.set_num_threads(1)  # the cluster needs the cores


@pytest.fixture(scope="session", params=["qwen2_5_vl"])
def family(request: pytest.FixtureRequest) -> str:
    """One for most tests; who wants others parametrises."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def path(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(family, tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def reference(path: Path) -> Reference:
    return Reference(path)


@pytest.fixture(scope="module")
def cluster_of(path: Path) -> Iterator[Callable[[str], Cluster]]:
    """A cluster by topology, started at its first use; all must stop in order."""
    running: dict[str, Cluster] = {}

    def get(topology: str) -> Cluster:
        if topology not in running:
            running[topology] = Cluster(path, topology)
        return running[topology]

    yield get
    codes = {topology: cluster.stop() for topology, cluster in running.items()}
    assert set(codes.values()) <= {0}, codes
