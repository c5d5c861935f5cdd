"""What transfers need of a GPU. Everything that is asked for is done later, in order per stream.

`CudaRuntime` has it; a stand-in on the CPU has it too, and decides itself when "later" is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

HANDLE_BYTES = 64
"""Of CUDA's handles for memory and for events."""


class Mark(Protocol):
    """A place in a stream of ours."""

    def done(self) -> bool:
        """Whether all before it is done. Does not wait."""

    def wait(self) -> None:
        """Until it is."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A range of a GPU's memory, ours or another process's. `event`: see `DeviceRuntime.sign`."""

    device: str
    num_bytes: int
    address: int
    event: Any


class DeviceRuntime(Protocol):
    """One GPU, seen from the step thread. "Our stream" is the one that the models run on."""

    @property
    def device(self) -> str:
        """Its UUID."""

    @property
    def reaches(self) -> tuple[str, ...]:
        """UUIDs of all GPUs whose memory this process can read, its own first."""

    def allocate(self, num_bytes: int) -> Memory:
        """Memory that other processes can open. It is free when this process has ended."""

    def export(self, memory: Memory) -> tuple[bytes, bytes]:
        """What opens our memory and its event elsewhere, HANDLE_BYTES each."""

    def open(self, device: str, num_bytes: int, memory: bytes, event: bytes) -> Memory:
        """Another process's memory. ProtocolError where that cannot be."""

    def close(self, memory: Memory) -> None:
        """Let go of what was opened. Nothing of it may be in use."""

    def view(
        self, memory: Memory, offset: int, num_bytes: int, gone: Callable[[], None]
    ) -> torch.Tensor:
        """Bytes of it as uint8. `gone` is called, by any thread, once no tensor shows them.

        Of another GPU's memory it is a tensor of that GPU: only copy() uses it in our stream.
        """

    def empty(self, num_bytes: int) -> torch.Tensor:
        """Memory of our GPU that nobody else sees, uint8; for work in our stream."""

    def offset(self, memory: Memory, tensor: torch.Tensor) -> int:
        """Where a tensor begins, from the beginning of the memory; may lie outside."""

    def on_host(self, tensor: torch.Tensor) -> bool:
        """Whether it is in the memory of no GPU."""

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> None:
        """In our stream."""

    def sign(self, memory: Memory) -> None:
        """Our stream's work up to here is what readers of our memory have to wait for."""

    def await_signed(self, memory: Memory) -> None:
        """Later work in our stream waits for what the owner of this memory signed last."""

    def mark(self) -> Mark:
        """Behind all that our stream was asked for."""

    def pin(self, memory: torch.Tensor) -> None:
        """Lock host memory, so that copies to it need no wait."""

    def unpin(self, memory: torch.Tensor) -> None:
        """Undo pin()."""

    def host_bytes(self, num_bytes: int) -> torch.Tensor:
        """Pinned host memory, uint8."""

    def download(self, source: torch.Tensor, to: torch.Tensor) -> Mark:
        """Copy to pinned host memory once our stream has made the source, beside our stream."""
