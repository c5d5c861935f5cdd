"""Prefill and decode of two ranks each on hosts of their own: CURVE over TCP, from rank to rank.

Where there can be no such hosts the skip says which command, or feature of the kernel, is missing.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.cluster.clients import Question, ask
from tests.cluster.front import Front, eventually
from tests.cluster.several import several
from tests.reference import Reference

pytestmark = pytest.mark.alone

ROLES = {
    "front": {"gateway": 1},
    "towers": {"encode": 1},
    "prompts": {"prefill": 1},
    "answers": {"decode": 1},
}
EVERY = {"encode-0", "prefill-0", "decode-0"}
TWO = ("placement.prefill.tp=2", "placement.decode.tp=2", "wire.dead_after_s=1")
SENT = 'epd_worker_rank_bytes_sent{stage="prefill",worker="prefill-0"}'
TAKEN = 'epd_worker_rank_bytes_taken{stage="decode",worker="decode-0"}'
KV = 'epd_worker_kv_bytes_sent{stage="prefill",worker="prefill-0"}'


def transfers(front: Front) -> dict[str, str]:
    """How prefill hands over, as an operator is told."""
    told = httpx.get(f"{front.url}/cluster", timeout=30).json()
    ways: dict[str, dict[str, str]] = {
        worker["name"]: worker["transfers"] for worker in told["workers"]
    }
    return ways["prefill-0"]


def test_ranks_read_memory_of_ranks_of_other_hosts(
    path: Path, reference: Reference, tmp_path: Path
) -> None:
    """By the real library, over whatever network it finds."""
    pytest.importorskip("nixl", reason="the extra nixl is not installed")
    nixl = ("wire.nixl=true", f"wire.shm_bytes={4 << 20}")
    with several(path, ROLES, tmp_path, *TWO, *nixl, own_memory=True) as cluster:
        front = cluster.front
        with cluster.hosts.inside("front"):
            eventually(lambda: front.workers() == EVERY, "all workers take part")
            assert transfers(front)["decode-0"] == "nixl, 2 ranks each their own"
            cluster.answers_as(reference)
            front.wait_until_idle()
            samples = front.metrics()
            assert samples[TAKEN] == samples[KV] / 2 > samples[SENT] == 0


def test_ranks_of_other_hosts_hand_over_by_themselves_also_after_their_link_was_cut(
    path: Path, reference: Reference, tmp_path: Path
) -> None:
    """Answers are those of one rank; a request without a link ends, and does not wait for it."""
    with several(path, ROLES, tmp_path, *TWO) as cluster:
        front, hosts = cluster.front, cluster.hosts
        with hosts.inside("front"):
            eventually(lambda: front.workers() == EVERY, "all workers take part")
            assert transfers(front)["decode-0"] == "frames, 2 ranks each their own"
            cluster.answers_as(reference)
            front.wait_until_idle()
            samples = front.metrics()
            assert samples[SENT] == samples[TAKEN] == samples[KV] / 2 > 0
            hosts.cut("prompts", "answers")
            cut = ask(front, Question((1,), "And now?", max_tokens=20), stream=False)
            assert cut.status == 503 and cut.error is not None, cut
            hosts.heal("prompts", "answers")
            again = Question((1,), "And now?", max_tokens=20)
            eventually(lambda: ask(front, again, stream=False).complete, "an answer", 60.0)
            cluster.answers_as(reference)
            front.wait_until_idle()
            assert front.metrics()[TAKEN] > samples[TAKEN]
