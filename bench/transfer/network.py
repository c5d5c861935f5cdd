"""Two hosts to send between: the loopback, or two network namespaces of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.serving.cluster import NotMeasured

PEER = "type veth peer name veth-b netns"


@dataclass(frozen=True, slots=True)
class Host:
    """How to start a program there, and where it listens."""

    prefix: tuple[str, ...]
    address: str


@contextmanager
def two_hosts(network: str) -> Iterator[tuple[Host, Host]]:
    """`network` is "loopback" or "namespaces"; the second needs root."""
    if network == "loopback":
        yield Host((), "127.0.0.1"), Host((), "127.0.0.1")
        return
    first, second = (f"epd-bench-{os.getpid()}-{end}" for end in "ab")
    try:
        for name in (first, second):
            _ip("netns", "add", name)
        _ip(*["link", "add", "name", "veth-a", "netns"], first, *PEER.split(), second)
        for name, device, address in (
            (first, "veth-a", "10.99.0.1"),
            (second, "veth-b", "10.99.0.2"),
        ):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            for each in ("lo", device):
                _ip("-n", name, "link", "set", each, "up")
        yield _inside(first, "10.99.0.1"), _inside(second, "10.99.0.2")
    finally:
        for name in (first, second):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _inside(name: str, address: str) -> Host:
    return Host(("ip", "netns", "exec", name), address)


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    except OSError as error:
        raise NotMeasured(f"no network namespaces here: {error}") from None
    if done.returncode:
        raise NotMeasured(f"no network namespaces here: {done.stderr.strip()}")
