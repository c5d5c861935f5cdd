"""Pods may connect exactly where epd's roles do."""

from __future__ import annotations

from typing import Any

import pytest

from epd.wire.addresses import parse_listen
from epd.workers.seats import PARTNERS, STAGES
from tests.deploy.overlays import OVERLAYS, Pod, of_kind, pods
from tests.deploy.test_policy import matches

CLIENTS = ((8000, "TCP"),)
NAMES = {(53, "UDP"), (53, "TCP")}
WEB = {(80, "TCP"), (443, "TCP")}

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def ports(rule: dict[str, Any]) -> set[tuple[int, str]]:
    return {(port["port"], port.get("protocol", "TCP")) for port in rule["ports"]}


def listens(pod: Pod) -> set[tuple[int, str]]:
    return {(port, "TCP") for port in parse_listen(pod.setting("listen")).ports}


def rules(overlay: str, pod: Pod, way: str) -> list[dict[str, Any]]:
    """All that policies allow to this pod, ingress or egress."""
    chosen = [
        one["spec"]
        for one in of_kind(overlay, "NetworkPolicy")
        if matches(one["spec"]["podSelector"], pod)
    ]
    assert any(way.capitalize() in spec["policyTypes"] for spec in chosen)
    return [rule for spec in chosen for rule in spec.get(way, ())]


def allowed(overlay: str, one: Pod, other: Pod, way: str) -> set[tuple[int, str]]:
    """Ports between two pods of the namespace: where `other` is a peer in a rule of `one`."""
    side = "from" if way == "ingress" else "to"
    found = set[tuple[int, str]]()
    for rule in rules(overlay, one, way):
        for peer in rule.get(side, ()):
            if "namespaceSelector" not in peer and "podSelector" in peer:
                found |= ports(rule) if matches(peer["podSelector"], other) else set()
    return found


def talks(one: str, other: str) -> bool:
    """Whether a role connects to another, as epd's own table of partners says."""
    if "gateway" in (one, other):
        return one != other
    return not PARTNERS[one].isdisjoint(STAGES[other])


@each_overlay
def test_roles_reach_their_partners_and_nobody_else(overlay: str) -> None:
    for one in pods(overlay):
        for other in pods(overlay):
            expected = listens(other) if talks(one.arguments[0], other.arguments[0]) else set()
            what = f"{one.owner} to {other.owner}"
            assert allowed(overlay, one, other, "egress") == expected, what
            assert allowed(overlay, other, one, "ingress") == expected, what


@each_overlay
def test_beyond_the_cluster_there_are_names_media_and_clients_alone(overlay: str) -> None:
    for pod in pods(overlay):
        role = pod.arguments[0]
        outside = [r for r in rules(overlay, pod, "egress") if "podSelector" not in r["to"][0]]
        outside += [r for r in rules(overlay, pod, "egress") if "namespaceSelector" in r["to"][0]]
        found = set().union(*(ports(rule) for rule in outside))
        assert found == (NAMES | WEB if role == "encode" else NAMES), pod.owner
        anybody = [r for r in rules(overlay, pod, "ingress") if "from" not in r]
        expected = set(CLIENTS) if role == "gateway" else set()
        assert set().union(*(ports(rule) for rule in anybody)) == expected, pod.owner


@each_overlay
def test_media_come_from_public_addresses_only(overlay: str) -> None:
    for pod in pods(overlay):
        for rule in rules(overlay, pod, "egress"):
            for peer in rule["to"]:
                if "ipBlock" in peer:
                    private = {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}
                    assert private <= set(peer["ipBlock"]["except"])
