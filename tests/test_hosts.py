"""Hosts on one machine, and what is said where there can be none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import tests.hosts
from tests.hosts import Hosts, why_not


@pytest.mark.parametrize(
    ("refused", "feature"),
    [
        (("netns", "add"), "CONFIG_NET_NS"),
        (("type", "bridge"), "CONFIG_BRIDGE"),
        (("type", "veth"), "CONFIG_VETH"),
        (("isolated", "on"), "Linux 4.18"),
    ],
)
def test_the_reason_names_the_feature_of_the_kernel_that_is_missing(
    refused: tuple[str, str], feature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kernel without it answers."""
    given: list[tuple[str, ...]] = []

    def ip(*words: str) -> None:
        given.append(words)
        if any(pair == refused for pair in zip(words, words[1:], strict=False)):
            raise subprocess.CalledProcessError(2, ["ip", *words], stderr="not supported\n")

    monkeypatch.setattr(tests.hosts, "_ip", ip)
    assert feature in why_not() and "(not supported)" in why_not()
    made = [words[2] for words in given if words[:2] == ("netns", "add")]
    gone = [words[2] for words in given if words[:2] == ("netns", "del")]
    assert refused == ("netns", "add") or sorted(made) == sorted(gone)


def test_without_the_ip_command_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert why_not() == "no ip command: it is in the package iproute2"


def test_nothing_is_left_of_hosts() -> None:
    if reason := why_not():
        pytest.skip(reason)
    before = set(Path("/run/netns").iterdir())
    hosts = Hosts("a", "b")
    made = set(Path("/run/netns").iterdir()) - before
    assert {path.name.rpartition("-")[2] for path in made} >= {"a", "b", "sw"}
    hosts.close()
    assert not made & set(Path("/run/netns").iterdir())
