"""A cluster whose roles are actors of a real Ray cluster of two nodes, on loopback addresses."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from epd.cli.main import main as epd
from launch.ray.__main__ import main as ray_roles
from tests.cluster.clients import Question, ask
from tests.cluster.crew import ports
from tests.cluster.front import Front, eventually
from tests.ray_nodes import ray_nodes

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.filterwarnings("default")]

QUESTION = Question((1, 2), "Hello there", max_tokens=200)
EVERY = {"encode-0", "prefill-0", "decode-0", "decode-1"}


@pytest.fixture
def address() -> Iterator[str]:
    """Of Ray's head."""
    with ray_nodes(2, "127.0.0.2", "127.0.0.3") as cluster:
        yield cluster.address


def test_a_killed_role_is_started_again_by_ray_and_no_answer_changes(
    address: str, path: Path, tmp_path: Path
) -> None:
    import ray

    http = ports()
    assert epd(["keys", str(tmp_path / "keys")]) == 0
    small = ["dtype=float32", "language.kv_tokens=16384", "wire.shm_bytes=0"]
    tree: dict[str, Any] = {
        "model": str(path),
        "keys": "keys",
        "python": sys.executable,
        "settings": [*small, f"gateway.port={http}"],
        "ports": f"{http + 1}-{http + 20}",
        "roles": {"encode": 1, "prefill": 1, "decode": 2},
    }
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(tree))
    assert ray_roles(["start", str(file), "--address", address]) == 0
    front = Front(f"http://127.0.0.1:{http}", path.name)
    eventually(lambda: front.workers() == EVERY, "all workers take part")
    right = ask(front, QUESTION, stream=True)
    role = ray.get_actor("decode-1", namespace="epd")
    os.kill(ray.get(role.ready.remote(5))["pid"], signal.SIGKILL)
    meanwhile = ask(front, QUESTION, stream=True)
    eventually(lambda: front.workers() == EVERY - {"decode-1"}, "it is missed", 60)
    eventually(lambda: front.workers() == EVERY, "Ray has started it again", 120)
    assert right.complete and meanwhile.text == ask(front, QUESTION, stream=True).text == right.text
    assert ray_roles(["stop", str(file), "--address", address]) == 0
