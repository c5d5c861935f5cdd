"""NIXL: the receiver reads the sender's arena over the network, by RDMA where there is any.

An optional extra. The sender does nothing but register its memory; the receiver reads a slot's
bytes into registered memory of its own and then the slot's stamp, which says whether the sender
took the slot back meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from epd.errors import ConfigError, ProtocolError, Unavailable
from epd.transfer import segments
from epd.transfer.arena import Arena, Slot
from epd.types import Member
from epd.wire.messages import Payload

BACKEND: Final = "UCX"

MIN_PULLED_BYTES: Final = 32 << 20


def pulled_bytes(shm_bytes: int) -> int:
    """Memory to read into, for senders with arenas as large as ours would be."""
    return max(MIN_PULLED_BYTES, shm_bytes)


class Reading(Protocol):
    """Bytes on their way here."""

    def done(self) -> bool:
        """Whether they are here. Does not wait. Unavailable: they will not come."""


class RemoteAgent(Protocol):
    """What is needed of NIXL; memory is host memory."""

    @property
    def metadata(self) -> bytes:
        """What others need to read memory that was registered before."""

    def register(self, memory: torch.Tensor) -> None:
        """It may be read from elsewhere, and read into."""

    def meet(self, metadata: bytes) -> str:
        """The name by which an owner of memory is read from. Unavailable: it is not reached."""

    def read(self, name: str, address: int, to: torch.Tensor) -> Reading:
        """Begin to read from that address. Unavailable: that cannot be."""


class NixlAgent:
    """The real one. ConfigError where it is not installed or does not start."""

    def __init__(self, name: str) -> None:
        try:
            from nixl import _bindings
            from nixl._api import nixl_agent, nixl_agent_config
        except ImportError as error:
            raise ConfigError(f"wire.nixl is true: install the extra nixl ({error})") from None
        self._errors = tuple(
            found
            for found in vars(_bindings).values()
            if isinstance(found, type) and issubclass(found, Exception)
        )
        self._agent: Any = nixl_agent(name, nixl_agent_config(backends=[BACKEND]))
        if BACKEND not in self._agent.get_plugin_list():
            raise ConfigError(f"wire.nixl is true, but NIXL has no backend {BACKEND} here")

    @property
    def metadata(self) -> bytes:
        """See RemoteAgent."""
        return bytes(self._agent.get_agent_metadata())

    def register(self, memory: torch.Tensor) -> None:
        """See RemoteAgent."""
        self._agent.register_memory([(memory.data_ptr(), memory.nbytes, 0, "")], "DRAM")

    def meet(self, metadata: bytes) -> str:
        """See RemoteAgent."""
        try:
            name = self._agent.add_remote_agent(metadata)
        except self._errors as error:
            raise Unavailable(f"NIXL does not reach a sender: {error}") from error
        return name.decode() if isinstance(name, bytes) else str(name)

    def read(self, name: str, address: int, to: torch.Tensor) -> Reading:
        """See RemoteAgent."""
        here = self._agent.get_xfer_descs([(to.data_ptr(), to.nbytes, 0)], "DRAM")
        there = self._agent.get_xfer_descs([(address, to.nbytes, 0)], "DRAM")
        try:
            handle = self._agent.initialize_xfer("READ", here, there, name, b"")
            self._agent.transfer(handle)
        except self._errors as error:
            raise Unavailable(f"NIXL could not read: {error}") from error
        return _NixlReading(self._agent, handle, self._errors)


class _NixlReading:
    def __init__(self, agent: Any, handle: Any, errors: tuple[type[Exception], ...]) -> None:
        self._agent = agent
        self._handle = handle
        self._errors = errors

    def done(self) -> bool:
        """See Reading."""
        try:
            state = self._agent.check_xfer_state(self._handle)
            if state == "PROC":
                return False
            self._agent.release_xfer_handle(self._handle)
        except self._errors as error:
            raise Unavailable(f"NIXL could not read: {error}") from error
        if state != "DONE":
            raise Unavailable(f"NIXL could not read: {state}")
        return True


@dataclass(eq=False, slots=True)
class Pull:
    """One payload on its way: first its bytes, then its stamp. `error` says why it failed."""

    member: Member
    payload: Payload
    name: str
    slot: Slot | None = None
    reading: Reading | None = None
    stamped: bool = False  # the stamp is what is read
    finished: bool = False
    error: Unavailable | ProtocolError | None = None


class RemoteReader:
    """Pulls into one block of registered memory. Step thread only."""

    def __init__(self, agent: RemoteAgent, num_bytes: int) -> None:
        self._agent = agent
        self._block = torch.zeros(num_bytes, dtype=torch.uint8)
        agent.register(self._block)
        self._arena = Arena(num_bytes)
        self._names: dict[tuple[str, str], str] = {}  # by a member's name and incarnation

    @property
    def metadata(self) -> bytes:
        """Tells others that this process reads in this way."""
        return self._agent.metadata

    def begin(self, member: Member, payload: Payload) -> Pull:
        """Ask for the payload's bytes; advance() goes on. What cannot be read is an error there."""
        pull = Pull(member, payload, "")
        try:
            pull.name = self._meet(member)
            self._check(member, payload)
        except (ProtocolError, Unavailable) as error:
            pull.error, pull.finished = error, True
        else:
            self.advance(pull)
        return pull

    def advance(self, pull: Pull) -> bool:
        """Whether its end has come. Never waits."""
        if pull.finished:
            return True
        if pull.slot is None:
            pull.slot = self._arena.lend(segments.STAMP_BYTES + pull.payload.nbytes, to="")
            if pull.slot is None:
                return False
        try:
            pull.finished = self._read_on(pull)
        except (Unavailable, ProtocolError) as error:
            pull.error, pull.finished = error, True
        return pull.finished

    def take(self, pull: Pull) -> torch.Tensor:
        """The bytes, uint8, in memory of their own. Unavailable or ProtocolError: none came."""
        assert pull.finished
        try:
            if pull.error is not None:
                raise pull.error
            return self._bytes(pull).clone()
        finally:
            self.drop(pull)

    def drop(self, pull: Pull) -> None:
        """Nobody needs a pull that has ended; its room is free."""
        assert pull.finished
        if pull.slot is not None:
            self._arena.give_back(pull.slot.number)
            pull.slot = None

    @property
    def in_use(self) -> int:
        """Bytes that are read into now."""
        return self._arena.in_use

    def _read_on(self, pull: Pull) -> bool:
        remote, payload = pull.member.remote, pull.payload
        assert remote is not None
        if pull.reading is None:
            at = remote.address + payload.offset
            pull.reading = self._agent.read(pull.name, at, self._bytes(pull))
        if not pull.reading.done():
            return False
        if not pull.stamped:
            pull.stamped = True
            at = remote.address + _stamp_at(payload)
            pull.reading = self._agent.read(pull.name, at, self._stamp(pull))
            if not pull.reading.done():
                return False
        if bytes(self._stamp(pull).numpy()) != segments.stamp(pull.member.segment, payload.slot):
            raise Unavailable(f"{pull.member.name} took its memory back")
        return True

    def _bytes(self, pull: Pull) -> torch.Tensor:
        assert pull.slot is not None
        first = pull.slot.offset + segments.STAMP_BYTES
        return self._block[first : first + pull.payload.nbytes]

    def _stamp(self, pull: Pull) -> torch.Tensor:
        assert pull.slot is not None
        return self._block[pull.slot.offset : pull.slot.offset + segments.STAMP_BYTES]

    def _meet(self, member: Member) -> str:
        if member.remote is None or not member.remote.num_bytes:
            raise ProtocolError("payload", f"{member.name} lends no memory to other hosts")
        key = (member.name, member.incarnation)
        if key not in self._names:
            self._names[key] = self._agent.meet(member.remote.metadata)
        return self._names[key]

    def _check(self, member: Member, payload: Payload) -> None:
        assert member.remote is not None
        end, size = payload.offset + payload.nbytes, member.remote.num_bytes
        first = _stamp_at(payload)
        if not 0 <= first <= payload.offset - segments.STAMP_BYTES or end > size:
            raise ProtocolError("payload", f"outside of the {size} bytes of segment")
        if not self._arena.could_fit(segments.STAMP_BYTES + payload.nbytes):
            raise ProtocolError(
                "payload",
                f"{payload.nbytes} bytes at once, more than {self._arena.num_bytes} here: "
                "wire.shm_bytes should be equal on all hosts",
            )


def _stamp_at(payload: Payload) -> int:
    return payload.kept_at if payload.kept else payload.offset - segments.STAMP_BYTES
