"""How much of everything is measured: on a card, and in a dry run. Pure."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
FULL_HD = (1920, 1080)
SMALL = (96, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPlan:
    """Sides of square products, bytes read, and for how long each is repeated."""

    sides: tuple[int, ...] = (4096, 8192, 16384)
    read_bytes: int = 4 * GIB
    seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """Decodes: `steps` at each batch size, ascending, with `context` tokens before each.

    Prompts that are one chunk, and pictures of one forward: each for `seconds`.
    """

    batches: tuple[int, ...] = (1, 8, 32, 128)
    context: int = 1024
    steps: int = 32
    chunks: tuple[int, ...] = (512, 2048, 8192)
    picture: tuple[int, int] = FULL_HD
    pictures: tuple[int, ...] = (1, 4)
    seconds: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """What is asked of a cluster, and --set key=value for all topologies."""

    settings: tuple[str, ...] = (
        "encode.cache_bytes=0",
        f"encode.rows_bytes={2 * GIB}",
        f"encode.prepared_bytes={2 * GIB}",
        "encode.max_batch_patches=65536",
        "encode.intake_threads=8",
        "encode.decoders=4",
        f"language.kv_bytes={6 * GIB}",
        f"language.rows_bytes={2 * GIB}",
        "language.max_step_tokens=8192",
        "language.max_context=32768",
        "language.prefix_cache=false",
        "wire.dead_after_s=60",
    )
    most_lent_bytes: int = 2 * GIB
    picture: tuple[int, int] = FULL_HD
    pictures: tuple[int, ...] = (1, 4)
    requests: int = 5
    streams: int = 8
    stream_tokens: int = 400
    before_s: float = 3.0
    burst: int = 6
    burst_pictures: int = 2
    timeout_s: float = 60.0


DRY_CARD = CardPlan(sides=(64,), read_bytes=1 << 20, seconds=0.01)
DRY_STAGES = StagePlan(
    batches=(1, 2), context=24, steps=2, chunks=(32,), picture=SMALL, pictures=(1,), seconds=0
)
DRY_CLUSTER = ClusterPlan(
    settings=(
        "threads=1",
        "encode.cache_bytes=0",
        "language.max_context=4096",
        "language.max_running=4",
        "language.prefix_cache=false",
        "wire.dead_after_s=60",
    ),
    most_lent_bytes=GIB // 16,
    picture=SMALL,
    pictures=(1,),
    requests=1,
    streams=1,
    stream_tokens=40,
    before_s=0.3,
    burst=1,
    burst_pictures=1,
)
