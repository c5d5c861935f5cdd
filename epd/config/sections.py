"""The sections of the configuration: frozen, unknown keys forbidden, sizes in bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from epd.config.keys import ApiKeys
from epd.config.media import MediaConfig
from epd.config.placement import PlacementConfig
from epd.config.section import MIB, Section
from epd.config.topology import Topology
from epd.errors import ConfigError
from epd.types import Modality

BATCH_PATCHES, CPU_BATCH_PATCHES = 16384, 1024
STEP_TOKENS, CPU_STEP_TOKENS = 2048, 512
KV_BYTES = 1024 * MIB


class GatewayConfig(ApiKeys):
    """The HTTP front."""

    host: str = Field("127.0.0.1", description="address the HTTP server binds to")
    port: int = Field(8000, ge=0, le=65535, description="HTTP port; 0 picks a free one")
    ui: bool = Field(True, description="serve a page at / to try the model with")
    served_model_name: str | None = Field(
        None, description="name clients use; the model folder's name unless set"
    )
    other_model_names: tuple[str, ...] = Field((), description="names that mean the same model")
    chat_template: Path | None = Field(
        None, description="file with a Jinja template; the checkpoint's own unless set"
    )
    trust_request_chat_template: bool = Field(
        False, description="let requests bring a chat template of their own"
    )
    request_chat_template_timeout_s: float = Field(
        2.0, gt=0, description="processor time that such a template may take to be rendered"
    )
    tool_call_format: Literal["auto", "hermes", "none"] = Field(
        "auto", description="how the model writes tool calls; found in the chat template unless set"
    )
    reasoning_format: Literal["auto", "think", "none"] = Field(
        "auto", description="how it writes reasoning; found in the chat template unless set"
    )
    max_body_bytes: int = Field(64 * MIB, gt=0, description="largest HTTP body")
    body_timeout_s: float = Field(
        60.0, gt=0, description="a body that takes longer to come is answered with 408"
    )
    max_items: int = Field(64, ge=0, description="most items in one request, of all kinds")
    max_waiting: int = Field(1024, ge=1, description="requests held before answering 429")
    media_budget_bytes: int = Field(
        1024 * MIB, gt=0, description="inline media kept for running requests before 429"
    )
    known_sources: int = Field(4096, ge=0, description="items kept under the uuid of a client")
    known_bytes: int = Field(256 * MIB, ge=0, description="memory for them")
    responses_bytes: int = Field(
        256 * MIB, ge=0, description="memory for responses that can be continued; 0 keeps none"
    )
    responses_tenant_bytes: int = Field(
        64 * MIB, gt=0, description="the most of it that one tenant takes"
    )
    responses_s: float = Field(
        3600.0, gt=0, description="how long a response and its media are kept at most"
    )
    max_wait_s: float = Field(
        120.0, gt=0, description="a request that would wait longer for KV is answered with 429"
    )
    grammar_timeout_s: float = Field(
        2.0, gt=0, description="processor time that the form of an answer may take to compile"
    )
    max_grammars: int = Field(16, ge=1, description="forms that wait to be compiled, before 429")
    request_timeout_s: float = Field(600.0, gt=0, description="a request ends after this with 503")
    drain_s: float = Field(
        30.0, ge=0, description="a worker drained over HTTP may finish for so long unless told else"
    )
    admin_key: str = Field(
        "", description="bearer token for draining workers; without it only this machine may"
    )
    allowed_origins: tuple[str, ...] = Field(
        (), description='origins whose web pages may ask (CORS), or ["*"]; none unless set'
    )
    allow: dict[str, tuple[str, ...]] = Field(
        {}, description="values that parts of workers' fingerprints may have, by the part's name"
    )
    otlp_endpoint: str | None = Field(
        None, description="OTLP/HTTP URL that traces go to; needs the extra otel"
    )


class EncodeConfig(Section):
    """Encode workers."""

    modalities: tuple[Modality, ...] = Field(
        (), description="what this worker encodes; all that the model takes unless set"
    )
    policy: Literal["fifo", "short_first"] = Field(
        "short_first", description="whether cheap items may pass costly ones; none ever starves"
    )
    max_batch_items: int = Field(8, ge=1, description="items per tower forward")
    max_batch_patches: int | None = Field(
        None,
        ge=1,
        description="patches per tower forward; unless set 16384, and 1024 on a CPU, where larger "
        "batches gain nothing and keep others waiting",
    )
    rows_bytes: int = Field(512 * MIB, gt=0, description="embedding rows kept for pulling")
    prepared_bytes: int = Field(
        512 * MIB, gt=0, description="preprocessed items kept before their towers"
    )
    intake_threads: int = Field(2, ge=1, description="items decoded and preprocessed at once")
    overlap: bool = Field(True, description="decode and preprocess items while the towers run")
    preprocess_on: Literal["cpu", "device"] = Field(
        "cpu",
        description="where pictures and frames are resized and normalised: with PIL on the CPU, as "
        "references are, or with torchvision on the worker's device (Qwen families)",
    )
    decoders: int = Field(2, ge=1, description="processes that decode media")
    cache_bytes: int = Field(
        256 * MIB, ge=0, description="rows kept for items that come again; 0 keeps none"
    )
    fetch_threads: int = Field(16, ge=1, description="items fetched at once")
    max_queued_items: int = Field(1024, ge=1, description="items queued before refusing")
    queued_bytes: int = Field(
        256 * MIB, gt=0, description="files that came with queued items before refusing"
    )
    fetch_bytes: int = Field(
        512 * MIB, gt=0, description="files being fetched, or waiting to be decoded"
    )

    def batch_patches(self, device: str) -> int:
        """Of a tower forward on this device."""
        return self.max_batch_patches or (CPU_BATCH_PATCHES if device == "cpu" else BATCH_PATCHES)


class LanguageConfig(Section):
    """Prefill, decode and fused workers."""

    block_size: int = Field(16, ge=16, multiple_of=16, description="tokens per KV block")
    kv_tokens: int | None = Field(
        None, ge=16, description="KV capacity in tokens; from kv_bytes unless set"
    )
    kv_bytes: int | None = Field(
        None,
        gt=0,
        description="KV capacity per worker; unless set 1 GiB on a CPU, and on GPUs what the "
        "memory plan leaves of them",
    )
    max_step_tokens: int | None = Field(
        None, ge=1, description="tokens per forward; unless set 2048, and 512 on a CPU"
    )
    max_running: int = Field(64, ge=1, description="requests decoded together")
    rows_bytes: int = Field(256 * MIB, gt=0, description="embedding rows pulled but not prefilled")
    prefix_cache: bool = Field(True, description="reuse KV of prompts that begin alike")
    overlap: bool = Field(True, description="prefill what has landed while later items are encoded")
    overlap_tokens: int = Field(
        64, ge=1, description="text before a missing item that is worth a forward of its own"
    )
    overlap_handoff: bool = Field(True, description="send KV to decode while prefill still runs")
    host_bytes: int = Field(
        1024 * MIB, ge=0, description="host memory for KV of preempted requests"
    )
    attention: Literal["auto", "flash", "triton", "sdpa"] = Field(
        "auto", description="attention backend; the first that can do it here unless set"
    )
    fused: bool = Field(True, description="join weights and fuse small operations on a CUDA device")
    compiled: bool = Field(
        True, description="compile steps of bfloat16 models, and parts of towers, for this CPU"
    )
    cuda_graphs: bool = Field(
        True,
        description="on GPUs, record decode steps at start where attention can be recorded",
    )
    ahead: Literal["auto", "on", "off"] = Field(
        "auto",
        description="plan and launch the next step while one computes; auto: on a GPU",
    )
    max_context: int | None = Field(
        None, ge=1, description="longest prompt + output; the checkpoint's limit unless set"
    )

    def step_tokens(self, device: str) -> int:
        """Of a forward on this device."""
        return self.max_step_tokens or (CPU_STEP_TOKENS if device == "cpu" else STEP_TOKENS)

    @property
    def kv_capacity(self) -> int:
        """Bytes of KV where `kv_tokens` is unset, see epd.workers.kv_plan for those of a GPU."""
        return KV_BYTES if self.kv_bytes is None else self.kv_bytes


class WireConfig(Section):
    """Sockets between processes."""

    insecure: bool = Field(False, description="allow sockets off loopback without CURVE keys")
    curve_dir: Path | None = Field(None, description="folder with the cluster's CURVE keys")
    chunk_bytes: int = Field(4 * MIB, ge=4096, description="bulk bytes per message on a socket")
    bulk_connections: int = Field(
        2, ge=1, le=16, description="TCP connections to a peer that share its bulk bytes"
    )
    high_water: int = Field(1000, ge=1, description="messages queued per socket")
    max_message_bytes: int = Field(64 * MIB, gt=0, description="largest frame accepted")
    shm_bytes: int = Field(
        64 * MIB,
        ge=0,
        description="shared-memory arena per worker, half of it for finished rows; 0 uses TCP",
    )
    device_bytes: int = Field(
        256 * MIB,
        ge=0,
        description="GPU memory per worker that workers of the same machine read through CUDA IPC, "
        "half of it for finished rows; 0 uses shared memory",
    )
    nixl: bool = Field(
        False,
        description="between hosts, read rows and KV with NIXL (an extra), which neither encrypts "
        "nor asks who reads; needs shm_bytes",
    )
    heartbeat_s: float = Field(0.5, gt=0, description="gateway to worker")
    dead_after_s: float = Field(5.0, gt=0, description="silence after which a peer is dead")
    resolve_s: float = Field(
        5.0, gt=0, description="how often the names of gateways are looked up again"
    )


class ServeConfig(Section):
    """The supervisor of a local cluster (`epd serve`)."""

    start_timeout_s: float = Field(600.0, gt=0, description="every process is ready by then")
    stop_grace_s: float = Field(10.0, gt=0, description="from SIGTERM to SIGKILL, per stage")
    max_restarts: int = Field(5, ge=0, description="restarts in a minute before the command fails")


class Config(Section):
    """Everything. `name`, `listen` and `gateways` matter to a single role started by hand."""

    model: str = Field("", description="folder of the checkpoint")
    trust_remote_code: bool = Field(
        False, description="load processors whose code lies in the checkpoint's folder"
    )
    load_format: Literal["auto", "dummy"] = Field(
        "auto",
        description="dummy: random weights of the model's real shapes, for measuring; the folder "
        "needs none",
    )
    topology: str = Field("1E1P1D", description="NENPND, NENPD (fused) or EPD (one engine)")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="the checkpoint's own unless set"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="cuda where there is one")
    threads: int | None = Field(
        None, ge=1, description="torch threads per worker; cores / workers unless set"
    )
    cache_dir: str = Field("", description="keeps what is compiled; XDG's cache folder unless set")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["line", "json"] = Field(
        "line", description="key=value, or one JSON object per line"
    )
    name: str = Field("", description="this process; its role and a number unless set")
    listen: str = Field(
        "",
        description="where this process binds: ipc://DIR, or tcp://HOST with free ports, "
        "tcp://HOST:PORT with that one and the next, tcp://HOST:FIRST-LAST with two of these",
    )
    gateways: tuple[str, ...] = Field(
        (),
        description="control addresses workers register with; a name stands for all addresses "
        "that it has, and is looked up again and again",
    )
    drain_s: float = Field(
        30.0,
        ge=0,
        description="on SIGTERM, what runs may finish for so long, and nothing new comes; 0 stops "
        "at once, as epd serve stops its processes",
    )
    probe_dir: Path | None = Field(
        None,
        description="folder of one worker, for a container's probes: `alive` there is touched "
        "while its loop turns, `ready` is there while it takes work",
    )
    gateway: GatewayConfig = GatewayConfig()
    encode: EncodeConfig = EncodeConfig()
    language: LanguageConfig = LanguageConfig()
    media: MediaConfig = MediaConfig()
    placement: PlacementConfig = PlacementConfig()
    wire: WireConfig = WireConfig()
    serve: ServeConfig = ServeConfig()

    @field_validator("topology")
    @classmethod
    def _topology_is_known(cls, text: str) -> str:
        try:
            Topology.parse(text)
        except ConfigError as error:
            raise ValueError(error.message) from error
        return text

    @model_validator(mode="after")
    def _what_is_taken_can_be_sent(self) -> Config:
        """An item, or a part of one, is one frame."""
        largest = self.wire.max_message_bytes
        for name, size in (
            ("gateway.max_body_bytes", self.gateway.max_body_bytes),
            ("wire.chunk_bytes", self.wire.chunk_bytes),
        ):
            if size > largest:
                raise ValueError(f"{name} is {size}: wire.max_message_bytes allows {largest}")
        return self
