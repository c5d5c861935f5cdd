"""The clusters that must all say the same: families, topologies, chunk sizes, tight memory.

"tight" is 1E1P1D with as little room as it can live with: requests wait for KV, rows are evicted
and made again, KV is never cached, rows and KV come in many small frames over sockets instead of
shared memory, and who has to give its KV up is placed again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import pytest

TIGHT_TOKENS = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One cluster: a family, a topology, and --set key=value."""

    family: str = "qwen2_5_vl"
    topology: str
    settings: tuple[str, ...] = ()
    roomy: bool = True
    caches: bool = True
    slow: bool = False


def chunks_of(num_tokens: int) -> tuple[str, ...]:
    return (f"language.max_step_tokens={num_tokens}",)


SETUPS: dict[str, Setup] = {
    "EPD": Setup(topology="EPD", slow=True),
    "1E1PD in chunks of 16": Setup(topology="1E1PD", settings=chunks_of(16), slow=True),
    "1E1P1D": Setup(topology="1E1P1D", settings=chunks_of(128)),
    "2E2P2D without caches": Setup(
        topology="2E2P2D",
        settings=(*chunks_of(64), "language.prefix_cache=false"),
        caches=False,
        slow=True,
    ),
    "tight": Setup(
        topology="1E1P1D",
        settings=(
            f"language.kv_tokens={TIGHT_TOKENS}",
            *chunks_of(64),
            "language.rows_bytes=8192",
            "language.prefix_cache=false",
            "language.host_bytes=0",
            "encode.rows_bytes=65536",
            "wire.chunk_bytes=4096",
            "wire.shm_bytes=0",
        ),
        roomy=False,
        caches=False,
    ),
    "qwen3_vl EPD in chunks of 16": Setup(
        family="qwen3_vl", topology="EPD", settings=chunks_of(16), slow=True
    ),
    "qwen3_vl 1E1PD": Setup(family="qwen3_vl", topology="1E1PD", slow=True),
    "qwen3_vl 1E1P1D without caches": Setup(
        family="qwen3_vl",
        topology="1E1P1D",
        settings=(*chunks_of(64), "language.prefix_cache=false"),
        caches=False,
        slow=True,
    ),
    "qwen3_vl 2E2P2D": Setup(
        family="qwen3_vl", topology="2E2P2D", settings=("language.block_size=32",)
    ),
    "EPD on two ranks": Setup(topology="EPD", settings=("placement.engine.tp=2",), slow=True),
    "1E1P1D, prefill on two ranks": Setup(
        topology="1E1P1D", settings=(*chunks_of(128), "placement.prefill.tp=2"), slow=True
    ),
    "1E1P1D, decode on two ranks": Setup(
        topology="1E1P1D", settings=(*chunks_of(128), "placement.decode.tp=2"), slow=True
    ),
    "qwen3_vl 1E1P1D on two ranks each": Setup(
        family="qwen3_vl",
        topology="1E1P1D",
        settings=("placement.prefill.tp=2", "placement.decode.tp=2"),
        slow=True,
    ),
    "1E1P1D on two ranks each, over sockets": Setup(
        topology="1E1P1D",
        settings=("placement.prefill.tp=2", "placement.decode.tp=2", "wire.shm_bytes=0"),
        slow=True,
    ),
}
OFTEN = tuple(name for name, setup in SETUPS.items() if not setup.slow)

CUDA = " on cuda"
ON_CUDA: dict[str, Setup] = {
    f"{name}{CUDA}": replace(setup, settings=(*setup.settings, "device=cuda"))
    for name, setup in SETUPS.items()
    if name != "tight" and "ranks" not in name
}


def params(often: Collection[str] = OFTEN) -> list[Any]:
    """All of them for a fixture; those in `often` are asked whenever tests run."""
    return [
        *(pytest.param(name, marks=() if name in often else pytest.mark.slow) for name in SETUPS),
        *(pytest.param(name, marks=_marks_on_cuda(name, often)) for name in ON_CUDA),
    ]


def _marks_on_cuda(name: str, often: Collection[str]) -> list[pytest.MarkDecorator]:
    rare = name.removesuffix(CUDA) not in often
    return [pytest.mark.gpu, *([pytest.mark.slow] if rare else [])]
