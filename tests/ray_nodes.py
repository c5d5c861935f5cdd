"""Nodes of a real Ray cluster on this machine, each at a loopback address of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import FOLDER

ROOT = Path(__file__).parents[1]


@contextmanager
def ray_nodes(cores: int, *addresses: str) -> Iterator[Any]:
    """Ray's own Cluster, whose first node is its head. Actors find this checkout wherever they are.

    Ray is this environment's, or that of .venvs/ray; skips where there is neither.
    """
    with pytest.MonkeyPatch.context() as patch:
        extra = [str(found) for found in (FOLDER / "ray" / "lib").glob("python*/site-packages")]
        patch.setattr(sys, "path", [*sys.path, *extra])
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *extra]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray = pytest.importorskip("ray", reason="Ray is not installed: `make test-ray`")
        from ray.cluster_utils import Cluster

        head = {"num_cpus": cores, "node_ip_address": addresses[0], "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for address in addresses[1:]:
                cluster.add_node(num_cpus=cores, node_ip_address=address)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
