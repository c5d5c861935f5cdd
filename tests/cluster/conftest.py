"""Tiny checkpoints, what Hugging Face says with them, and the clusters that must say the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import build
from tests.cluster.cases import Client
from tests.cluster.expected import Expected
from tests.cluster.running import Cluster
from tests.cluster.setups import ON_CUDA, SETUPS, Setup, params
from tests.reference import Reference

torch.set_num_threads(1)  # the cluster needs the cores


@pytest.fixture(scope="session")
def path_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny checkpoint of a family."""
    return cache(lambda family: build(family, tmp_path_factory.mktemp(family) / "tiny"))


@pytest.fixture(scope="session")
def expected_of(path_of: Callable[[str], Path]) -> Callable[[str], Expected]:
    """What Hugging Face says with it."""
    return cache(lambda family: Expected(Reference(path_of(family))))


@pytest.fixture(scope="session")
def path(path_of: Callable[[str], Path]) -> Path:
    return path_of("qwen2_5_vl")


@pytest.fixture(scope="session")
def reference(expected_of: Callable[[str], Expected]) -> Reference:
    return expected_of("qwen2_5_vl").reference


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


@pytest.fixture(scope="module", params=params())
def setup(request: pytest.FixtureRequest) -> Setup:
    """One cluster runs at a time and answers all tests of a file that it can."""
    return (SETUPS | ON_CUDA)[request.param]


@pytest.fixture(scope="module")
def client(path_of: Callable[[str], Path], setup: Setup) -> Iterator[Client]:
    settings: Any = ("media.allow_private_addresses=true", *setup.settings)
    cluster = Cluster(path_of(setup.family), setup.topology, *settings)
    client = Client(cluster)
    yield client
    client.close()
    assert cluster.stop() == 0


@pytest.fixture(scope="module")
def expected(expected_of: Callable[[str], Expected], setup: Setup) -> Expected:
    return expected_of(setup.family)
