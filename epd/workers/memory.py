"""What each role will need of memory, from configuration and checkpoint; nothing is allocated.

Imports no torch, so that a supervisor and `epd check` can ask too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from epd.config import Config
from epd.media.decoders import budget
from epd.models.sizes import (
    ITEM_BYTES,
    SmallWeights,
    language_weights,
    num_weights,
    small_towers,
    small_weights,
    text_size,
    tower_size,
)
from epd.models.spec import Checkpoint
from epd.models.storage import blocks_of, why_plain
from epd.observe.devices import Gpu, Tenant, check_devices
from epd.observe.machine import (
    available_host,
    available_shared,
    compiles,
    compiles_many_rows,
    held_host,
    widens_bfloat16,
)
from epd.observe.memory import Machine, Need, Where, check_fits, table
from epd.types import Modality

log = logging.getLogger(__name__)

MIB = 1 << 20
GATEWAY_BASE = 200 * MIB
WORKER_BASE = 350 * MIB
CUDA_BASE = 1500 * MIB
CUDA_CONTEXT = 600 * MIB
"""Measured, rounded up: Python with its libraries, and what CUDA adds on the host and the GPU."""

COLLECTIVES = 512 * MIB
"""Buffers of NCCL on each GPU; its defaults, not measured."""

GRAMMAR_BASE = 64 * MIB
"""Of the gateway's process that tries grammars."""

GRAMMAR_TOKEN_BYTES = 1 << 10
"""Per entry of the vocabulary that grammars are compiled for; measured, rounded up."""

STAGED_CHUNKS = 16
"""Bulk messages on their way in and out: a window of KV or rows and its acknowledgements."""

KEPT_ACTIVATIONS = 8
"""Hidden-wide tensors alive at once in a layer: residual, normed, q, k, v, attention, output."""

SAMPLED_BYTES = 64
"""Per logit of a step that samples: scores in double precision, sorted, their places, penalties."""

RANKED_BYTES = 8
"""Per logit of a prompt whose logprobs are asked for: in single precision, and exponentiated."""

GRAPHS_BASE = 256 * MIB
"""Of all recorded decode steps together, for their kernels' arguments; assumed, not measured."""

RANKED_LOGITS = 1 << 24
"""The engine makes no more of these at once."""


def needs_of(
    role: str, config: Config, checkpoint: Checkpoint, *, device: str, rank: int = 0
) -> list[Need]:
    """All that one process of this role may come to hold. `device`: "cpu" or "cuda".

    `rank`: which of its worker's processes it is, see epd.engine.ranks.
    """
    if role == "gateway":
        budget = config.gateway.media_budget_bytes
        return [
            Need(name="interpreter", num_bytes=GATEWAY_BASE),
            Need(name="inline media", num_bytes=budget, settings=("gateway.media_budget_bytes",)),
            Need(
                name="known sources",
                num_bytes=config.gateway.known_bytes,
                settings=("gateway.known_bytes",),
            ),
            Need(name="grammars", num_bytes=GRAMMAR_BASE + _grammars(checkpoint)),
            Need(
                name="kept responses",
                num_bytes=config.gateway.responses_bytes,
                settings=("gateway.responses_bytes",),
            ),
        ]
    tp = config.placement.of(role).tp
    where = Where.DEVICE if device == "cuda" else Where.HOST
    sizes = _Sizes(config, checkpoint, where, rank=rank, tp=tp)
    if rank:
        return [*_base(device), *sizes.following(role)]
    needs = [*_base(device), *sizes.staging(role)]
    if role in ("encode", "engine"):
        needs += sizes.encode()
    if role != "encode":
        needs += sizes.language(role)
    return needs


def check_worker(
    role: str, config: Config, checkpoint: Checkpoint, *, device: str, rank: int = 0
) -> None:
    """Log what this process will need; ConfigError when the machine has less. `device`: its own."""
    kind, _, _ = device.partition(":")
    needs = needs_of(role, config, checkpoint, device=kind, rank=rank)
    gpu = take_device(device) if kind == "cuda" else None
    machine = Machine(
        host=available_host() + held_host(),  # what it holds now is among the needs
        shared=available_shared(),
        device=None if gpu is None else gpu.free,
    )
    log.info("%s", table(needs, machine))
    if gpu is not None:
        share = config.placement.of(role).share
        me = Tenant(name=f"this {role} worker", device=device, share=share, needs=needs)
        check_devices([me], {device: gpu})
        limit_device(device, share)
    check_fits(needs, machine, f"this {role} worker")


def _grammars(checkpoint: Checkpoint) -> int:
    return checkpoint.vocab_size * GRAMMAR_TOKEN_BYTES


def take_device(device: str) -> Gpu:
    """Make it this thread's current one. What it has."""
    import torch

    torch.cuda.set_device(torch.device(device if ":" in device else f"{device}:0"))
    free, whole = torch.cuda.mem_get_info()
    return Gpu(total=whole, free=free)


def limit_device(device: str, share: float | None) -> None:
    """More than its share is out of memory to torch, however much is free."""
    import torch

    if share is not None:
        torch.cuda.set_per_process_memory_fraction(share, torch.device(device))


def _base(device: str) -> Sequence[Need]:
    if device == "cpu":
        return (Need(name="interpreter", num_bytes=WORKER_BASE),)
    return (
        Need(name="interpreter", num_bytes=WORKER_BASE + CUDA_BASE),
        Need(name="CUDA context", num_bytes=CUDA_CONTEXT, where=Where.DEVICE),
    )


class _Sizes:
    """The parts of a process. `compute` is the memory that its model runs in."""

    def __init__(
        self, config: Config, checkpoint: Checkpoint, compute: Where, *, rank: int, tp: int
    ) -> None:
        self._tp = tp
        self._config = config
        self._checkpoint = checkpoint
        self._compute = compute
        device = "cpu" if compute is Where.HOST else "cuda"
        self._step_tokens = config.language.step_tokens(device)
        dtype = checkpoint.dtype if config.dtype == "auto" else config.dtype
        self._item_bytes = ITEM_BYTES.get(dtype, 4)
        self._widened = compute is Where.HOST and dtype == "bfloat16" and widens_bfloat16()
        single = compute is Where.HOST and dtype == "bfloat16" and tp == 1
        self._compiled = single and config.language.compiled and compiles()
        self._one_copy = self._compiled and compiles_many_rows()
        modalities = config.encode.modalities or checkpoint.spec.modalities
        self._tower_weights, _ = num_weights(checkpoint, modalities)
        self._language_weights = language_weights(checkpoint).of_rank(rank, tp)
        self._small = self._small_tower = SmallWeights()
        if self._keeps_blocks(dtype):
            self._small = small_weights(checkpoint, tp)
            self._small_tower = small_towers(checkpoint, modalities)

    def staging(self, role: str) -> list[Need]:
        """What travels between stages, on its way."""
        return self._arenas(role) if role == "engine" else [self._queues(), *self._arenas(role)]

    def _queues(self) -> Need:
        num_bytes = STAGED_CHUNKS * self._config.wire.chunk_bytes
        return Need(name="queues", num_bytes=num_bytes, settings=("wire.chunk_bytes",))

    def _arenas(self, role: str) -> list[Need]:
        """What others read, of every rank. Both halves of an engine lend the GPU's memory alone."""
        wire, needs = self._config.wire, []
        if role in ("encode", "prefill", "engine") and self._compute is Where.DEVICE:
            needs.append(self._computing("device arena", wire.device_bytes, "wire.device_bytes"))
        if role in ("encode", "prefill"):
            needs.append(
                Need(
                    name="arena",
                    num_bytes=wire.shm_bytes,
                    where=Where.SHARED,
                    settings=("wire.shm_bytes",),
                )
            )
        return needs

    def encode(self) -> list[Need]:
        """Towers, finished rows, and pictures on their way to them."""
        encode, media = self._config.encode, self._config.media
        tower, item = tower_size(self._checkpoint), self._item_bytes
        values = KEPT_ACTIVATIONS * tower.hidden + 2 * tower.intermediate
        patches = encode.batch_patches("cuda")  # an item alone may be as large on a CPU
        largest = max(media.limits(modality).max_bytes for modality in Modality)
        files = encode.fetch_bytes + encode.queued_bytes + largest
        decoding = encode.decoders * (budget.BASE_BYTES + budget.work_bytes(media))
        # A decoder is idle, or has another thread's item, while a result is preprocessed. Pictures
        # are on its desks then, which are part of its base, or copies where these are all lent.
        waiting = max(0, encode.intake_threads - encode.decoders) * budget.result_bytes(media)
        return [
            self._weights(
                "tower weights", self._tower_weights, self._small_tower, single_rows=False
            ),
            self._computing("rows store", encode.rows_bytes, "encode.rows_bytes"),
            self._computing("rows cache", encode.cache_bytes, "encode.cache_bytes"),
            self._computing(
                "tower activations", patches * values * item, "encode.max_batch_patches"
            ),
            self._computing("pixels", encode.prepared_bytes, "encode.prepared_bytes"),
            Need(
                name="files",
                num_bytes=files,
                settings=("encode.fetch_bytes", "encode.queued_bytes"),
            ),
            Need(
                name="decoders",
                num_bytes=decoding + waiting,
                settings=("encode.decoders", "media.image.max_pixels"),
            ),
        ]

    def language(self, role: str) -> list[Need]:
        """Weights, KV, rows, and the tensors of one step."""
        language = self._config.language
        needs = [
            *self._part(),
            *self._screen(),
            self._computing("sampling", self._sampling(), "language.max_running"),
            *self._graphs(role),
            Need(name="grammars", num_bytes=_grammars(self._checkpoint)),
        ]
        if role != "prefill":
            needs.append(self._host())
        if role != "decode":
            rows = language.rows_bytes
            needs.append(Need(name="rows", num_bytes=rows, settings=("language.rows_bytes",)))
            needs += self._rows_on_device()
            needs.append(
                self._computing("prompt logprobs", self._ranking(), "language.max_step_tokens")
            )
        return needs

    def _rows_on_device(self) -> list[Need]:
        """Rows in the encoder's memory on a GPU that are copied; each row is on one side alone, but
        which way a peer's rows come is not known before it is there."""
        if self._compute is Where.HOST or not self._config.wire.device_bytes:
            return []
        rows = self._config.language.rows_bytes
        return [self._computing("rows on the GPU", rows, "language.rows_bytes")]

    def following(self, role: str) -> list[Need]:
        """Of a rank that does what rank 0 orders."""
        host = [] if role == "prefill" else [self._host()]
        queues = [self._queues()] if role in ("prefill", "decode") else []  # of its own sockets
        return [*self._part(), *self._graphs(role), *host, *queues, *self._arenas(role)]

    def _part(self) -> list[Need]:
        """What every rank has of the language model."""
        needs = [
            self._weights("weights", self._language_weights, self._small, single_rows=True),
            self._kv_cache(),
            self._computing("activations", self._step(), "language.max_step_tokens"),
        ]
        if self._tp > 1 and self._compute is Where.DEVICE:
            needs.append(self._computing("collectives", COLLECTIVES))
        return needs

    def _host(self) -> Need:
        host = self._config.language.host_bytes // self._tp
        return Need(name="preempted KV", num_bytes=host, settings=("language.host_bytes",))

    def _kv_cache(self) -> Need:
        tokens = self._config.language.kv_tokens
        if tokens is None:
            num_bytes = self._config.language.kv_capacity // self._tp
            return self._computing("KV cache", num_bytes, "language.kv_bytes")
        values = text_size(self._checkpoint).kv_values // self._tp
        num_bytes = tokens * values * self._item_bytes
        return self._computing("KV cache", num_bytes, "language.kv_tokens")

    def _step(self) -> int:
        text = text_size(self._checkpoint)
        width = max(text.hidden, text.heads * text.head_dim)
        values = KEPT_ACTIVATIONS * width + 3 * text.intermediate
        return self._step_tokens * values * self._item_bytes

    def _sampling(self) -> int:
        logits = self._config.language.max_running * self._checkpoint.vocab_size
        return logits * (self._item_bytes + SAMPLED_BYTES)

    def _graphs(self, role: str) -> list[Need]:
        """What recorded decode steps compute in; they share it."""
        language, text = self._config.language, text_size(self._checkpoint)
        if role == "prefill" or self._compute is Where.HOST or not language.cuda_graphs:
            return []
        width = max(text.hidden, text.heads * text.head_dim)
        values = KEPT_ACTIVATIONS * width + 3 * text.intermediate + self._checkpoint.vocab_size
        num_bytes = GRAPHS_BASE + language.max_running * values * self._item_bytes
        return [self._computing("decode graphs", num_bytes, "language.cuda_graphs")]

    def _ranking(self) -> int:
        logits = self._step_tokens * self._checkpoint.vocab_size
        return min(logits, RANKED_LOGITS) * (self._item_bytes + RANKED_BYTES)

    def _screen(self) -> list[Need]:
        """Bytes beside the head's weights, see epd.models.compiled.screened."""
        if not self._compiled:
            return []
        text, vocab = text_size(self._checkpoint), self._checkpoint.vocab_size
        return [self._computing("head screen", vocab * (text.hidden + 8), "language.compiled")]

    def _keeps_blocks(self, dtype: str) -> bool:
        """Does what can stay in FP8 stay so?"""
        block = blocks_of(self._checkpoint.config)
        device = "cuda" if self._compute is Where.DEVICE else "cpu"
        fused = self._config.language.fused
        return block is not None and not why_plain(block, device=device, dtype=dtype, fused=fused)

    def _weights(self, name: str, values: int, small: SmallWeights, *, single_rows: bool) -> Need:
        """In every copy that is packed, see epd.models.packed; `small` ones never are."""
        item, settings = 4 if self._widened else self._item_bytes, ["dtype"]
        if single_rows and not self._one_copy and (self._widened or self._compiled):
            item += self._item_bytes  # as few rows read them fastest
            settings += [] if self._widened else ["language.compiled"]
        num_bytes = (values - small.values) * item + small.num_bytes
        return self._computing(name, num_bytes, *settings)

    def _computing(self, name: str, num_bytes: int, *settings: str) -> Need:
        return Need(name=name, num_bytes=num_bytes, where=self._compute, settings=settings)
