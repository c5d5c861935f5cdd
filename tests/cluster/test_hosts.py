"""Five hosts, a stage on each: the short form of test_several_hosts.py, for every run.

Where there can be no such hosts the skip says which command, or feature of the kernel, is missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.clients import Load, Question, ask
from tests.cluster.front import eventually
from tests.cluster.several import several
from tests.reference import Reference

pytestmark = pytest.mark.alone

ROLES = {
    "front": {"gateway": 1},
    "towers": {"encode": 1},
    "prompts": {"prefill": 1},
    "answers": {"decode": 1},
    "others": {"decode": 1},
}
EVERY = {"encode-0", "prefill-0", "decode-0", "decode-1"}
QUESTION = Question((1,), "Hello there", max_tokens=60)


def test_a_stage_on_each_host_answers_as_one_does_and_a_cut_link_costs_no_request(
    path: Path, reference: Reference, tmp_path: Path
) -> None:
    """CURVE, names by DNS; a decode host vanishes in the middle of an answer and comes back."""
    with several(path, ROLES, tmp_path, "wire.dead_after_s=1") as cluster:
        front, hosts = cluster.front, cluster.hosts
        with hosts.inside("front"):
            eventually(lambda: front.workers() == EVERY, "all workers take part")
            cluster.answers_as(reference)
            right = ask(front, QUESTION, stream=True)
            with Load(front, (QUESTION,), clients=2) as load:
                eventually(lambda: load.streaming, "a stream has begun")
                hosts.cut_off("answers")
                eventually(lambda: front.workers() == EVERY - {"decode-0"}, "it is missed")
                hosts.rejoin("answers")
                eventually(lambda: front.workers() == EVERY, "it is back")
        assert cluster.names.asked >= {"gateways.epd.test", "front.epd.test", "prompts.epd.test"}
    assert right.complete and load.outcomes
    for one in load.outcomes:
        assert one.complete and one.text == right.text, (one.status, one.error, one.text)
