"""How much KV workers on GPUs have where the configuration is silent: what the plan leaves of them.

Known before they start, so that all ranks of a worker have equally many pages, and roles on one GPU
divide what is left whoever comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from epd.config import Config, Placement
from epd.config.sections import KV_BYTES
from epd.models.sizes import ITEM_BYTES, text_size
from epd.models.spec import Checkpoint, read_checkpoint
from epd.observe.devices import Gpu
from epd.observe.gpus import gpus_here
from epd.observe.memory import Where, total
from epd.workers.memory import needs_of

LEFT_ALONE = 0.1
"""Of a GPU whose workers have no share: what allocators cannot use, and libraries take besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One that is to be started, with its own devices."""

    name: str
    role: str
    placement: Placement

    def devices(self, usual: str) -> list[str]:
        """Of its ranks, "cpu" or cuda:N."""
        found = [self.placement.device(rank, usual) for rank in range(self.placement.tp)]
        return ["cuda:0" if device == "cuda" else device for device in found]


@dataclass(frozen=True, slots=True)
class _Rank:
    worker: str
    has_kv: bool
    share: float | None
    num_bytes: int  # of the GPU, without KV


def plan_kv(
    config: Config, checkpoint: Checkpoint, workers: Sequence[Worker], gpus: Mapping[str, Gpu]
) -> dict[str, int]:
    """Bytes of KV of each worker on GPUs, by its name; of none where the configuration says it.

    Never less than on a CPU: what does not fit is refused with its sums. Never more than requests
    that run together can fill.
    """
    language = config.language
    if not gpus or language.kv_bytes is not None or language.kv_tokens is not None:
        return {}
    on: dict[str, list[_Rank]] = {name: [] for name in gpus}
    bare = with_kv(config, 0)
    for worker in workers:
        for rank, device in enumerate(worker.devices("cuda")):
            if device in on:
                needs = needs_of(worker.role, bare, checkpoint, device="cuda", rank=rank)
                others = total(needs, Where.DEVICE)
                has_kv, share = worker.role != "encode", worker.placement.share
                on[device].append(_Rank(worker.name, has_kv, share, others))
    rooms: dict[str, list[int]] = {}
    for device, ranks in on.items():
        for name, room in _rooms(ranks, gpus[device]):
            rooms.setdefault(name, []).append(room)
    most = _most(config, checkpoint)
    return {  # the ranks of one worker have equal parts
        name: max(KV_BYTES, min(most, min(found) * len(found))) for name, found in rooms.items()
    }


def with_kv(config: Config, num_bytes: int | None) -> Config:
    """With so much KV; None: as it is."""
    if num_bytes is None:
        return config
    language = config.language.model_copy(update={"kv_bytes": num_bytes})
    return config.model_copy(update={"language": language})


def planned(role: str, config: Config) -> Config:
    """For a worker that was started by hand: nobody else has looked at this machine's GPUs."""
    language = config.language
    if role == "encode" or language.kv_bytes is not None or language.kv_tokens is not None:
        return config
    gpus = {} if config.device == "cpu" else gpus_here()
    if not gpus:
        return config
    checkpoint = read_checkpoint(
        config.model,
        max_context=language.max_context,
        trust_remote_code=config.trust_remote_code,
        dummy=config.load_format == "dummy",
    )
    worker = Worker(name=role, role=role, placement=config.placement.of(role))
    return with_kv(config, plan_kv(config, checkpoint, [worker], gpus).get(role))


def _rooms(ranks: Sequence[_Rank], gpu: Gpu) -> Iterator[tuple[str, int]]:
    """For KV, of each worker's rank on one GPU: of its share, or of what no share takes."""
    shares = {rank.worker: rank.share * gpu.total for rank in ranks if rank.share is not None}
    granted = sum(shares.values())
    scale = min(1.0, gpu.free / granted) if granted else 1.0
    others = [rank for rank in ranks if rank.share is None]
    common = gpu.free - LEFT_ALONE * gpu.total - scale * granted
    common -= sum(rank.num_bytes for rank in others)
    common /= max(1, sum(rank.has_kv for rank in others))
    for rank in ranks:
        if rank.has_kv:
            own = rank.worker in shares
            room = scale * shares[rank.worker] - rank.num_bytes if own else common
            yield rank.worker, int(room)


def _most(config: Config, checkpoint: Checkpoint) -> int:
    """All requests that run together, each as long as the model allows."""
    dtype = checkpoint.dtype if config.dtype == "auto" else config.dtype
    per_token = text_size(checkpoint).kv_values * ITEM_BYTES.get(dtype, 4)
    return config.language.max_running * checkpoint.max_context * per_token
