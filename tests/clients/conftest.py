"""One tiny cluster that all clients of a file ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import build
from tests.cluster.running import Cluster


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen2_5_vl", tmp_path_factory.mktemp("clients") / "tiny")


@pytest.fixture(scope="module")
def cluster(checkpoint: Path) -> Iterator[Cluster]:
    """Every client must leave it with nothing held."""
    cluster = Cluster(checkpoint, "1E1P1D")
    yield cluster
    cluster.wait_until_idle()
    assert cluster.stop() == 0
