"""Hosts on one machine: network namespaces on a switch whose links can be cut and healed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SWITCH = "sw"
NAMES = Path("/etc/netns")
HERE = Path("/proc/thread-self/ns/net")
NETWORK = 0x40000000  # CLONE_NEWNET


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Hosts:
    """Each host has one address; all reach each other until two of them are cut apart.

    A cut is silent, as a broken switch is: nobody gets an error, packets are just gone.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._made: list[str] = []
        try:
            self._add(SWITCH)
            _ip("-n", self._space(SWITCH), "link", "add", "switch", "type", "bridge")
            _ip("-n", self._space(SWITCH), "link", "set", "switch", "up")
            for name in names:
                self._plug_in(name)
        except subprocess.CalledProcessError:
            self.close()
            raise

    def _space(self, name: str) -> str:
        return f"epd-{os.getpid()}-{name}"

    def _add(self, name: str) -> None:
        _ip("netns", "add", self._space(name))
        self._made.append(self._space(name))

    def _plug_in(self, name: str) -> None:
        self._add(name)
        host, switch = self._space(name), self._space(SWITCH)
        port = ("type", "veth", "peer", "name", f"to-{name}", "netns", switch)
        _ip("link", "add", "net", "netns", host, *port)
        _ip("-n", switch, "link", "set", f"to-{name}", "master", "switch", "up")
        _ip("-n", host, "addr", "add", f"{self.address(name)}/24", "dev", "net")
        for link in ("net", "lo"):
            _ip("-n", host, "link", "set", link, "up")

    def address(self, name: str) -> str:
        """Where its processes listen."""
        return f"10.77.0.{self._names.index(name) + 1}"

    def command(self, name: str) -> list[str]:
        """What stands before a command that is to run on this host."""
        return ["ip", "netns", "exec", self._space(name)]

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread, and those that it starts meanwhile, use this host's network."""
        with HERE.open() as before, Path(f"/run/netns/{self._space(name)}").open() as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def cut(self, *names: str) -> None:
        """These hosts do not reach each other any more; they still reach all others."""
        self._isolate(names, "on")

    def heal(self, *names: str) -> None:
        """They do again."""
        self._isolate(names, "off")

    def cut_off(self, name: str) -> None:
        """Nobody reaches this host any more, nor it anybody."""
        _ip("-n", self._space(SWITCH), "link", "set", f"to-{name}", "nomaster")

    def rejoin(self, name: str) -> None:
        """It is on the switch again."""
        _ip("-n", self._space(SWITCH), "link", "set", f"to-{name}", "master", "switch")

    def detour(self, name: str) -> tuple[str, str]:
        """Its packets no longer pass by themselves: both ends of the gap, devices of the switch."""
        switch, gap = self._space(SWITCH), f"gap-{name}"
        far = ("type", "veth", "peer", "name", f"{gap}-far")
        _ip("-n", switch, "link", "add", gap, *far)
        _ip("-n", switch, "link", "set", f"{gap}-far", "master", "switch", "up")
        _ip("-n", switch, "link", "set", gap, "up")
        self.cut_off(name)
        return f"to-{name}", gap

    def name_server(self, address: str) -> None:
        """All hosts ask it for names; it is to run on the switch, at this address."""
        _ip("-n", self._space(SWITCH), "addr", "add", f"{address}/24", "dev", "switch")
        for name in self._names:
            folder = NAMES / self._space(name)
            folder.mkdir(parents=True)
            (folder / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:1\n")

    def _isolate(self, names: Sequence[str], on: str) -> None:
        for name in names:
            link = ("link", "set", "dev", f"to-{name}", "type", "bridge_slave", "isolated", on)
            _ip("-n", self._space(SWITCH), *link)

    def close(self) -> None:
        """Nothing is left of them."""
        for space in reversed(self._made):
            _ip("netns", "del", space)
            shutil.rmtree(NAMES / space, ignore_errors=True)
        self._made.clear()


def _enter(space: int) -> None:
    """What os.setns does from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(space, NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


FEATURES = {
    "netns": "network namespaces: CONFIG_NET_NS, and CAP_SYS_ADMIN to make one",
    "bridge": "bridges: CONFIG_BRIDGE",
    "veth": "pairs of virtual network cards: CONFIG_VETH",
    "isolated": "ports of a bridge that can be isolated: Linux 4.18",
}
"""What in a refused command of `ip` stands for which feature of the kernel."""


def why_not() -> str:
    """Why there can be no hosts here; empty where there can."""
    if shutil.which("ip") is None:
        return "no ip command: it is in the package iproute2"
    hosts: Hosts | None = None
    try:
        hosts = Hosts("probe")
        hosts.cut("probe")
    except subprocess.CalledProcessError as error:
        return f"the kernel has no {missing(error.cmd)} ({error.stderr.strip()})"
    finally:
        if hosts is not None:
            hosts.close()
    return ""


def missing(command: Sequence[str]) -> str:
    """The feature of the kernel that a refused command needs besides those above it."""
    named = [feature for word, feature in FEATURES.items() if word in command]
    return named[-1] if named else " ".join(command)
