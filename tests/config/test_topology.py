"""The grammar of a topology."""

from __future__ import annotations

import pytest

from epd.config import ROLES, Topology
from epd.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "workers"),
    [
        ("1E1P1D", (("encode", 1), ("prefill", 1), ("decode", 1))),
        ("2E10P3D", (("encode", 2), ("prefill", 10), ("decode", 3))),
        ("1E2PD", (("encode", 1), ("fused", 2))),
        ("EPD", (("engine", 1),)),
    ],
)
def test_a_topology_counts_processes_of_each_role(
    text: str, workers: tuple[tuple[str, int], ...]
) -> None:
    assert Topology.parse(text).workers == workers


@pytest.mark.parametrize(
    "text", ["", "1E1P", "E1P1D", "0E1P1D", "1E0PD", "1e1p1d", "1EPD", "PD", "1E1P1D ", "01E1PD"]
)
def test_anything_else_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(ConfigError, match="NENPND"):
        Topology.parse(text)


def test_processes_are_named_by_role_and_number_in_the_order_they_stop() -> None:
    topology = Topology.parse("2E1P1D")
    assert topology.num_workers == 4
    assert topology.names() == [
        ("gateway", "gateway-0"),
        ("encode", "encode-0"),
        ("encode", "encode-1"),
        ("prefill", "prefill-0"),
        ("decode", "decode-0"),
    ]


def test_every_role_of_a_topology_is_a_role_of_the_command() -> None:
    used = {role for text in ("1E1P1D", "1E1PD", "EPD") for role, _ in Topology.parse(text).names()}
    assert used == set(ROLES)
