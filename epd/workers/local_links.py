"""Links of a role that shares its process with others: messages between them never leave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from epd.types import Member
from epd.wire.inproc_links import InprocLinks
from epd.wire.links import Buffer, Links


class LocalLinks:
    """`inproc` for the names in `local`, which is filled in later; `outer` for everybody else."""

    def __init__(self, outer: Links, inproc: InprocLinks, local: Mapping[str, InprocLinks]) -> None:
        self.name = outer.name
        self.incarnation = outer.incarnation
        self.control = outer.control
        self.bulk = outer.bulk
        self._outer = outer
        self._inproc = inproc
        self._local = local

    def _for(self, name: str) -> Links:
        return self._inproc if name in self._local else self._outer

    def start(self) -> None:
        """Both."""
        self._outer.start()
        self._inproc.start()

    def close(self) -> None:
        """Both."""
        self._outer.close()
        self._inproc.close()

    def connect(self, member: Member) -> None:
        """Know this peer; a local one by its way inside the process."""
        near = self._local.get(member.name)
        if near is None:
            self._outer.connect(member)
        else:
            self._inproc.connect(
                replace(member, incarnation=near.incarnation, control=near.control, bulk=near.bulk)
            )

    def connect_unknown(self, address: str) -> None:
        """Only a gateway, which is never local."""
        self._outer.connect_unknown(address)

    def forget(self, name: str) -> None:
        """Drop this peer."""
        self._for(name).forget(name)

    def send(self, to: str, message: object, frame: Buffer | None = None) -> bool:
        """By the way that leads to the peer."""
        return self._for(to).send(to, message, frame)

    def counters(self) -> dict[str, int]:
        """Those of the sockets."""
        return self._outer.counters()
