"""Eight requests in memory for one and a tenth: all end with the right tokens and none waits on.

Their answers outgrow what was held for them at admission. Who has to give its KV up keeps it in
host memory, or is placed again where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.cases import CASES, Case, Client
from tests.cluster.expected import Expected
from tests.cluster.running import Cluster

MAX_TOKENS = 160
IN_FLIGHT = 8
NAMES = ("1 pictures", "2 pictures", "plain string", "picture alone")


@dataclass(frozen=True, slots=True)
class Pressure:
    """The cases with the right answers, and memory for little more than the largest."""

    cases: tuple[Case, ...]
    right: tuple[list[int], ...]
    kv_tokens: int


@pytest.fixture(scope="module")
def pressure(expected_of: Callable[[str], Expected]) -> Pressure:
    expected = expected_of("qwen2_5_vl")
    cases = tuple(CASES[name] for name in NAMES)
    answers = []
    for case in cases:
        prompt, new = expected.reference.generate(
            case.messages, case.images, MAX_TOKENS, repetition_penalty=1.0, eos_token_id=[]
        )
        answers.append((len(prompt), new))
    longest = max(num_prompt for num_prompt, _ in answers) + MAX_TOKENS
    kv_tokens = int(longest * 1.1) // 16 * 16
    return Pressure(cases, tuple(new for _, new in answers), kv_tokens)


HOST = 64 << 20
FAST = [("EPD", "true", HOST)]
SLOW = [
    (topology, cache, host)
    for topology in ("EPD", "1E1PD", "1E1P1D", "2E2P2D")
    for cache in ("true", "false")
    for host in (HOST, 0)
    if (topology, cache, host) not in FAST
]


@pytest.mark.parametrize(
    ("topology", "prefix_cache", "host_bytes"),
    [*FAST, *(pytest.param(*setting, marks=pytest.mark.slow) for setting in SLOW)],
)
def test_eight_in_flight_with_memory_for_one_end_as_generate_says(
    path: Path, pressure: Pressure, topology: str, prefix_cache: str, host_bytes: int
) -> None:
    """Kept by the host where it has room, else placed again."""
    cluster = Cluster(
        path,
        topology,
        f"language.kv_tokens={pressure.kv_tokens}",
        f"language.host_bytes={host_bytes}",
        f"language.prefix_cache={prefix_cache}",
        "language.max_step_tokens=64",
    )
    client = Client(cluster)
    try:
        numbers = [number % len(pressure.cases) for number in range(IN_FLIGHT)]
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            answers = threads.map(lambda number: answer(client, pressure.cases[number]), numbers)
            for number, found in zip(numbers, answers, strict=True):
                assert found == pressure.right[number]
        cluster.wait_until_idle()
        assert (preemptions(cluster) > 0) == (host_bytes > 0)
    finally:
        client.close()
        code = cluster.stop()
    assert code == 0


def answer(client: Client, case: Case) -> list[int]:
    asked = client.ask(case.asked(), max_tokens=MAX_TOKENS, ignore_eos=True, repetition_penalty=1.0)
    return asked.token_ids


def preemptions(cluster: Cluster) -> float:
    """How often a request gave its KV up to the host."""
    samples = cluster.metrics()
    return sum(value for name, value in samples.items() if name.startswith("epd_worker_preempted{"))
