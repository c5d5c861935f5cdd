"""A network that reads memory of other hosts, one piece at a time, when it is let."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from epd.errors import ProtocolError, Unavailable


class Network:
    """`pending` are readings that nobody let happen yet; `memories` what may be read from."""

    def __init__(self) -> None:
        self.pending: list[Piece] = []
        self.memories: list[tuple[int, int]] = []

    def add(self, piece: Piece) -> None:
        """It is asked for."""
        self.pending.append(piece)

    def run(self, number: int = 0) -> None:
        """One of them happens."""
        if self.pending:
            self.pending.pop(number % len(self.pending)).happen()

    def run_all(self) -> None:
        while self.pending:
            self.run()

    def fail_all(self) -> None:
        for piece in self.pending:
            piece.failed = True
        self.pending.clear()


@dataclass(eq=False)
class Piece:
    """A Reading."""

    address: int
    to: torch.Tensor
    happened: bool = False
    failed: bool = False

    def happen(self) -> None:
        ctypes.memmove(self.to.data_ptr(), self.address, self.to.nbytes)
        self.happened = True

    def done(self) -> bool:
        if self.failed:
            raise Unavailable("the network is gone")
        return self.happened


class FakeAgent:
    """A RemoteAgent."""

    metadata = b"an agent"

    def __init__(self, network: Network) -> None:
        self._network = network

    def register(self, memory: torch.Tensor) -> None:
        self._network.memories.append((memory.data_ptr(), memory.nbytes))

    def meet(self, metadata: bytes) -> str:
        if metadata != self.metadata:
            raise ProtocolError("remote memory", "what is this?")
        return "somebody"

    def read(self, name: str, address: int, to: torch.Tensor) -> Piece:
        ends = [(first, first + size) for first, size in self._network.memories]
        assert any(first <= address <= address + to.nbytes <= end for first, end in ends)
        piece = Piece(address, to)
        self._network.add(piece)
        return piece
