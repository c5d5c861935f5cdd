"""Name servers: what some names mean, over UDP, and that all others are unknown."""

from __future__ import annotations

import re
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.debian import environment, find

PORT = 53
A, IN = 1, 1
ANSWERS, UNKNOWN = 0x8180, 0x8183
SECONDS = 1
"""How long an answer may be kept."""


class Names(Protocol):
    """A server, and which names it was asked for."""

    @property
    def asked(self) -> set[str]: ...

    def close(self) -> None: ...


def name_server(address: str, table: Mapping[str, Sequence[str]], folder: Path) -> Names:
    """dnsmasq where there is one, else our own. Its log goes to `folder`."""
    program = find("dnsmasq")
    if program is None:
        return NameServer(address, table)
    return Dnsmasq(program, address, table, folder / "dnsmasq.log")


class Dnsmasq:
    """A process in the network that this thread is in."""

    def __init__(
        self, program: Path, address: str, table: Mapping[str, Sequence[str]], log: Path
    ) -> None:
        self._log = log
        records = [f"--host-record={name},{','.join(places)}" for name, places in table.items()]
        alone = ("--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root")
        here = ("--keep-in-foreground", f"--listen-address={address}", "--bind-interfaces")
        told = ("--log-queries", f"--log-facility={log}", f"--local-ttl={SECONDS}")
        self._process = subprocess.Popen(
            [str(program), *alone, *here, *told, *records], env=environment()
        )

    @property
    def asked(self) -> set[str]:
        """By anybody, until now."""
        return set(re.findall(r"query\[A+\] (\S+) from", self._log.read_text()))

    def close(self) -> None:
        """Nobody gets an answer any more."""
        self._process.terminate()
        self._process.wait(10)


class NameServer:
    """Listens at `address` of the network that this thread is in. `table` may change meanwhile."""

    def __init__(self, address: str, table: Mapping[str, Sequence[str]]) -> None:
        self.asked: set[str] = set()
        self._table = table
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, PORT))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="names")
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            if select.select([self._socket], [], [], 0.2)[0]:
                query, sender = self._socket.recvfrom(512)
                self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        """One question in, all its addresses out; none of a kind other than A."""
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode())
            at += 1 + length
        name = ".".join(labels).lower()
        kind, _ = struct.unpack("!HH", query[at + 1 : at + 5])
        self.asked.add(name)
        places = self._table.get(name, ())
        found = places if kind == A else ()
        head = query[:2] + struct.pack(
            "!HHHHH", ANSWERS if places else UNKNOWN, 1, len(found), 0, 0
        )
        rows = (
            struct.pack("!HHHIH", 0xC00C, A, IN, SECONDS, 4) + socket.inet_aton(place)
            for place in found
        )
        return head + query[12 : at + 5] + b"".join(rows)

    def close(self) -> None:
        """Nobody gets an answer any more."""
        self._stop.set()
        self._thread.join()
        self._socket.close()
