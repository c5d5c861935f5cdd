"""NCCL between the cards of several processes: Gloo does it, as work of the current stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from tests.simulated import rooms
from tests.simulated.card import card

_plain: dict[str, Any] = {}


def join(backend: str, *args: Any, device_id: Any = None, **kwargs: Any) -> None:
    """Stands for init_process_group."""
    if backend == "nccl" and device_id is None:
        raise RuntimeError("NCCL would have to guess which card is this rank's")
    _plain["init_process_group"]("gloo", *args, **kwargs)


def _on_card(name: str) -> Callable[..., None]:
    def run(*args: Any, **kwargs: Any) -> None:
        given = list(rooms.tensors([args, kwargs]))
        if not any(each.is_cuda for each in given):
            _plain[name](*args, **kwargs)
            return
        if not all(each.is_cuda for each in given):
            raise RuntimeError(f"No backend type associated with device type cpu ({name})")
        uses = [rooms.use(each, writes=True) for each in given]
        args, kwargs = rooms.mapped((args, kwargs), rooms.host)
        with card.lock:
            if card.recording is not None:
                card.recording.add(lambda: _plain[name](*args, **kwargs), uses)
                return
            card.launch(uses, name)
        _plain[name](*args, **kwargs)

    return run


def install() -> None:
    """For this process."""
    for name in ("all_reduce", "broadcast", "gather", "scatter"):
        _plain[name] = getattr(dist, name)
        setattr(dist, name, torch.inference_mode()(_on_card(name)))
    _plain["init_process_group"] = dist.init_process_group
    dist.init_process_group = join  # type: ignore[assignment]
