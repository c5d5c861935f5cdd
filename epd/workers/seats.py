"""Build the seats of one process: links, station and core of each of its roles."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from epd.config import Config, LanguageConfig
from epd.encoder import Encoder
from epd.engine import Engine
from epd.engine.ranks.leading import LedModel
from epd.errors import ConfigError
from epd.grammar import Grammars
from epd.handoff import KvReceiver, RowReceiver
from epd.models.language import LanguageModel, load_language
from epd.models.laps import Laps, laps_for
from epd.models.placement import resolve_device, resolve_dtype
from epd.models.sizes import refuse_division
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.towers import load_towers
from epd.prompt import tokenizer_json
from epd.transfer.incoming import Incoming
from epd.transfer.nixl import NixlAgent, RemoteReader, pulled_bytes
from epd.transfer.outgoing import Outgoing
from epd.transfer.runtime import DeviceRuntime
from epd.transfer.segments import host_id
from epd.types import Gpu, Member, Stage
from epd.wire.inbox import Inbox
from epd.wire.inproc_links import Hub, InprocLinks
from epd.wire.links import Links
from epd.wire.messages import PROTOCOL_VERSION, Register
from epd.wire.zmq_links import ZmqLinks
from epd.workers.core import Core
from epd.workers.decode import DecodeCore
from epd.workers.encode import EncodeCore
from epd.workers.local_links import LocalLinks
from epd.workers.lookup import Lookup
from epd.workers.memory import check_worker
from epd.workers.prefill import PrefillCore
from epd.workers.pulse import Pulse
from epd.workers.ranks import Followers
from epd.workers.station import Station

FULL_RETRY_S = 0.01
PULL_BYTES = 256 << 20
KV_WINDOW_BYTES = 32 << 20

STAGES: dict[str, tuple[Stage, ...]] = {
    "encode": (Stage.ENCODE,),
    "prefill": (Stage.PREFILL,),
    "decode": (Stage.DECODE,),
    "fused": (Stage.PREFILL, Stage.DECODE),
}

PARTNERS: dict[str, frozenset[Stage]] = {
    "encode": frozenset({Stage.PREFILL}),
    "prefill": frozenset({Stage.ENCODE, Stage.DECODE}),
    "decode": frozenset({Stage.PREFILL}),
    "fused": frozenset({Stage.ENCODE}),
}


@dataclass
class Seat:
    """One role of this process."""

    links: Links
    pulse: Pulse
    station: Station
    core: Core
    laps: Laps
    followers: Followers | None = None

    def counters(self) -> dict[str, int]:
        """What the links and other ranks counted, for the gauges of a heartbeat."""
        ranks = {} if self.followers is None else self.followers.gauges()
        return {f"links_{name}": num for name, num in self.links.counters().items()} | ranks


class _SeatInbox:
    """Puts events into the process's inbox with the seat they are for."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.seat: Seat | None = None

    def put(self, event: object) -> bool:
        """False when the inbox is full."""
        return self._inbox.put((self.seat, event))

    def put_local(self, event: object) -> None:
        """From a thread of the stage's own, which waits while the inbox is full."""
        while not self.put(event):
            time.sleep(FULL_RETRY_S)


@dataclass
class _Build:
    """What all seats of one process share."""

    config: Config
    checkpoint: Checkpoint
    inbox: Inbox
    lookup: Lookup
    device: str
    dtype: str
    followers: Followers | None
    laps: Laps
    runtime: DeviceRuntime | None
    hub: Hub = field(default_factory=Hub)
    roles: dict[str, str] = field(default_factory=dict)
    local: dict[str, InprocLinks] = field(default_factory=dict)


def build_seats(
    role: str,
    config: Config,
    inbox: Inbox,
    lookup: Lookup,
    followers: Followers | None = None,
) -> list[Seat]:
    """Load what the role needs and bind its sockets; nothing is sent yet."""
    limit_threads(config)
    checkpoint, dtype = read_model(config)
    name = config.name or f"{role}-{os.getpid()}"
    roles = {f"{name}.encode": "encode", name: "fused"} if role == "engine" else {name: role}
    if not set(roles.values()) <= set(STAGES):
        raise ConfigError(f"there is no role {role!r}")
    placement = config.placement.of(role)
    refuse_division(checkpoint, placement.tp)
    device = resolve_device(placement.device(0, resolve_device(config.device)))
    check_worker(role, config, checkpoint, device=device)
    build = _Build(
        config=config,
        checkpoint=checkpoint,
        inbox=inbox,
        lookup=lookup,
        device=device,
        dtype=dtype,
        followers=followers,
        laps=laps_for(torch.device(device)),
        runtime=_runtime(device),
        roles=roles,
    )
    return [_seat(build, seat_name, seat_role) for seat_name, seat_role in roles.items()]


def read_model(config: Config) -> tuple[Checkpoint, str]:
    """What is served, and the dtype that it is computed in."""
    checkpoint = read_checkpoint(
        config.model,
        max_context=config.language.max_context,
        trust_remote_code=config.trust_remote_code,
        dummy=config.load_format == "dummy",
    )
    return checkpoint, resolve_dtype(config.dtype, checkpoint)


def limit_threads(config: Config) -> None:
    """To those that this process should compute with."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)


def _seat(build: _Build, name: str, role: str) -> Seat:
    config = build.config
    sink = _SeatInbox(build.inbox)
    pulse = Pulse()
    links = _links(build, name, sink, pulse)
    ends = _ends(build, role)
    make, facts = _core(build, role, sink, ends)
    member = Member(
        name=name,
        incarnation=links.incarnation,
        stages=STAGES[role],
        control=links.control,
        bulk=links.bulk,
        host=host_id(),
        pool=_pool(build),
        segment=ends.outgoing.segment,
        pid=os.getpid(),
        gpu=ends.gpu,
        remote=ends.outgoing.remote or ends.incoming.remote,
        **facts,
    )
    register = Register(member=member, fingerprint=_fingerprint(build), via="")
    partners = PARTNERS[role]
    station = Station(
        links,
        config.wire,
        build.lookup,
        register,
        pulse,
        wants=lambda other: other.name != name and not partners.isdisjoint(other.stages),
    )
    core = make(station)
    station.attach(core)
    sink.seat = Seat(links, pulse, station, core, build.laps, build.followers)
    return sink.seat


@dataclass(frozen=True, slots=True)
class _Ends:
    """What a seat sends tensors from and reads them with."""

    outgoing: Outgoing
    incoming: Incoming
    runtime: DeviceRuntime | None

    @property
    def gpu(self) -> Gpu | None:
        """What others may know of this process's GPU."""
        if self.runtime is None:
            return None
        lends, reads = self.outgoing.handle, self.incoming.lease
        reaches = self.runtime.reaches if reads else ()
        return Gpu(device=self.runtime.device, reaches=reaches, lease=reads, handle=lends)


def _runtime(device: str) -> DeviceRuntime | None:
    """None on the host."""
    if not device.startswith("cuda"):
        return None
    from epd.transfer.cuda import CudaRuntime

    return CudaRuntime(device)


def _ends(build: _Build, role: str) -> _Ends:
    """Seats of one process share its host memory anyway, where rows travel as frames; the memory of
    a GPU they lend each other as other processes do."""
    wire, runtime, alone = build.config.wire, build.runtime, len(build.roles) == 1
    sends, reads = role in ("encode", "prefill"), role != "encode"
    agent = NixlAgent(f"{role}-{secrets.token_hex(8)}") if wire.nixl and alone else None
    outgoing = Outgoing(
        arena_bytes=wire.shm_bytes if sends and alone else 0,
        runtime=runtime,
        device_bytes=wire.device_bytes if sends else 0,
        agent=agent if sends else None,
    )
    reader = None
    if agent is not None and reads:
        reader = RemoteReader(agent, pulled_bytes(wire.shm_bytes))
    incoming = Incoming(runtime if reads and wire.device_bytes else None, reader)
    return _Ends(outgoing, incoming, runtime)


def _links(build: _Build, name: str, sink: _SeatInbox, pulse: Pulse) -> Links:
    config = build.config
    outer = ZmqLinks(name, config.listen, config.wire, sink, on_io=pulse.answer)
    if len(build.roles) == 1:
        return outer
    build.local[name] = inproc = InprocLinks(name, build.hub, sink)
    return LocalLinks(outer, inproc, build.local)


def _fingerprint(build: _Build) -> dict[str, str]:
    found = {
        **build.checkpoint.fingerprint(),
        "protocol": str(PROTOCOL_VERSION),
        "dtype": build.dtype,
    }
    if (
        build.config.encode.preprocess_on == "device"
    ):  # rows differ a little, see docs/configuration.md
        found["pictures"] = build.device.partition(":")[0]
    return found


def _pool(build: _Build) -> str:
    return "|".join(f"{key}={value}" for key, value in sorted(_fingerprint(build).items()))


def _core(
    build: _Build, role: str, sink: _SeatInbox, ends: _Ends
) -> tuple[Callable[[Station], Core], dict[str, Any]]:
    """How to make the core once its station exists, and what its Member says of it."""
    if role == "encode":
        return _encode(build, sink, ends.outgoing)
    model, language = _language(build), _language_config(build)
    if role == "prefill":  # no answer goes on here: nothing to preempt, no steps to record
        language = language.model_copy(update={"host_bytes": 0, "cuda_graphs": False})
    engine = Engine(model, language, _grammars(build.checkpoint))
    facts = {
        "kv_tokens": engine.num_tokens_capacity,
        "max_context": build.checkpoint.max_context,
        "attention": engine.attention,
        "ranks": () if build.followers is None else build.followers.ranks(),
    }
    if role == "decode":
        window = max(256, KV_WINDOW_BYTES // kv_bytes_per_token(model))
        kv = KvReceiver(model.num_layers, window)
        return lambda station: DecodeCore(station, engine, kv, ends.incoming, build.laps), facts
    rows = RowReceiver(language.rows_bytes, PULL_BYTES)
    chunk = build.config.wire.chunk_bytes
    return lambda s: PrefillCore(
        s, model, engine, rows, ends.outgoing, chunk, language, ends.incoming, build.laps
    ), facts


def _language(build: _Build) -> LanguageModel | LedModel:
    group = None if build.followers is None else build.followers.join(build.device)
    model = load_language(
        build.checkpoint,
        device=build.device,
        dtype=build.dtype,
        cache=_cache(build.config),
        fused=build.config.language.fused,
        group=group,
    )
    if group is None or build.followers is None:
        return model
    return LedModel(model, group, build.followers.send, build.followers.tasks)


def _language_config(build: _Build) -> LanguageConfig:
    """No request becomes longer than the checkpoint allows, however much KV there is."""
    return build.config.language.model_copy(update={"max_context": build.checkpoint.max_context})


def _grammars(checkpoint: Checkpoint) -> Grammars:
    return Grammars(
        lambda: tokenizer_json(checkpoint.path),
        vocab_size=checkpoint.vocab_size,
        eos_token_ids=checkpoint.eos_token_ids,
    )


def _cache(config: Config) -> Path | None:
    """Where what is compiled is kept; None where there should be nothing."""
    compiled = config.language.compiled and config.cache_dir
    return Path(config.cache_dir) / "compiled" if compiled else None


def _encode(
    build: _Build, sink: _SeatInbox, outgoing: Outgoing
) -> tuple[Callable[[Station], Core], dict[str, Any]]:
    config = build.config
    modalities = config.encode.modalities or build.checkpoint.spec.modalities
    towers = load_towers(
        build.checkpoint,
        modalities=modalities,
        device=build.device,
        dtype=build.dtype,
        pictures_on=build.device if config.encode.preprocess_on == "device" else None,
        cache=_cache(config),
        fused=config.language.fused,
    )
    encoder = Encoder(
        towers, config.encode, config.media, _pool(build), sink.put_local, outgoing.keep, build.laps
    )
    chunk = config.wire.chunk_bytes
    return lambda s: EncodeCore(s, encoder, outgoing, chunk), {"modalities": modalities}


def kv_bytes_per_token(model: LanguageModel | LedModel) -> int:
    """K and V of all layers."""
    return 2 * model.num_layers * model.kv_heads * model.head_dim * model.dtype.itemsize
