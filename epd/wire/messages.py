"""The messages of epd: each is a sentence with a sender, a receiver and a promise.

A message is frozen data with a stable tag. Bytes (pixels, rows, KV) never stand in a message: they
are raw frames after it, described by its `Payload`. Receivers ignore repeats and messages of a
stale attempt. Pure: no sockets, no tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from epd.types import (
    ItemForm,
    ItemKey,
    ItemLayout,
    MediaOptions,
    Member,
    Modality,
    Prefix,
    Prompt,
    RequestKey,
    SamplingParams,
    TokenLogprobs,
    TokenRun,
)

PROTOCOL_VERSION = 1

REGISTRY: dict[str, type[Any]] = {}

T = TypeVar("T")


def message(tag: str) -> Callable[[type[T]], type[T]]:
    """Register a frozen dataclass under a stable tag. A tag is never reused for another meaning."""

    def register(cls: type[T]) -> type[T]:
        assert tag not in REGISTRY, tag
        REGISTRY[tag] = cls
        cls.TAG = tag  # type: ignore[attr-defined]
        return cls

    return register


# ---- what bulk messages say about their bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """Where the bytes of a bulk message are, and what they are.

    `slot` < 0: in the one raw frame after the message. Otherwise in the sender's shared-memory
    arena (its `Member.segment`) at `offset`, to be given back with `slot` once copied.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    slot: int = -1
    offset: int = 0


# ---- membership


@message("cluster.register")
@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Worker -> gateway: here I am. Repeated until answered by Welcome or RegisterRefused.

    `via` is the address that the worker knows the gateway by; Welcome says it back. `lost` counts
    how often it took the gateway behind that address for dead: what it held is gone each time.
    """

    member: Member
    fingerprint: dict[str, str]
    via: str
    lost: int = 0


@message("cluster.welcome")
@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """Gateway -> worker: you are in the table."""

    gateway: str
    incarnation: str
    via: str


@message("cluster.register_refused")
@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRefused:
    """Gateway -> worker: you are not, and this is what differs. The worker exits with it."""

    reason: str


@message("cluster.members")
@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Gateway -> worker, on every change: the whole table. The only source of addresses."""

    members: tuple[Member, ...]


@message("cluster.heartbeat")
@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Gateway -> worker: I live, and so do the leases of all my requests."""

    sequence: int


@message("cluster.heartbeat_reply")
@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReply:
    """Worker -> gateway, from the I/O thread: age of the running step, and gauges."""

    sequence: int
    step_age_ms: int
    gauges: dict[str, int]


@message("cluster.holding")
@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Worker -> gateway, every few seconds: all that I hold for you.

    The gateway takes back what it knows nothing of: the attempt whose Cancel got lost, the job that
    came out of a buffer after the worker had been taken for dead.
    """

    requests: tuple[RequestKey, ...]
    items: tuple[ItemKey, ...]


@message("cluster.forgotten")
@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """Worker -> worker: I took you for dead and let go of all that we shared. Let go of it too.

    The first message after such a mistake; what follows it counts again.
    """

    reason: str


@message("cluster.leaving")
@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Worker or gateway -> peer: I stop now; treat me as dead without waiting."""

    reason: str


# ---- encode


@message("encode.item")
@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeItem:
    """Gateway -> encode: turn this item into rows. Answered by LayoutReady or ItemFailed.

    `url` says where to fetch it, or the bytes are the one raw frame after it: its pieces, one
    behind the other, of which `pieces` has (name, bytes). `text_before` is the prompt's text since
    its last special token. `salt` is the tenant's and goes into the content key. `wanted`: its
    consumer already waits, so the rows are kept until pulled or dropped. `hold`: its KV may be
    cached, so the tower waits for RunTower or the first pull.
    """

    item: ItemKey
    modality: Modality
    url: str | None
    text_before: str
    form: ItemForm = ItemForm.FILE
    pieces: tuple[tuple[str, int], ...] = ()
    options: MediaOptions = MediaOptions()
    salt: str = ""
    wanted: bool = False
    hold: bool = False


@message("encode.layout")
@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutReady:
    """Encode -> gateway: what the item becomes in the prompt. Sent before the tower runs."""

    item: ItemKey
    layout: ItemLayout


@message("encode.run")
@dataclass(frozen=True, slots=True, kw_only=True)
class RunTower:
    """Gateway -> encode: the item that was to be held is needed after all."""

    item: ItemKey


@message("encode.failed")
@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFailed:
    """Encode -> gateway: the item cannot be encoded; fields of an EpdError."""

    item: ItemKey
    status: int
    code: str
    reason: str


@message("encode.drop")
@dataclass(frozen=True, slots=True, kw_only=True)
class DropItem:
    """Gateway -> encode: the item's consumer is gone. Later messages of this key are refused."""

    item: ItemKey


# ---- rows: encode -> prefill, pulled


@message("rows.pull")
@dataclass(frozen=True, slots=True, kw_only=True)
class PullRows:
    """Prefill -> encode: send rows [first_row, first_row + num_rows) when they exist.

    A pull is the credit: an encoder never sends a row that was not asked for.
    """

    request: RequestKey
    item: ItemKey
    first_row: int
    num_rows: int


@message("rows.data")
@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingData:
    """Encode -> prefill, bulk: one part of an item, rows [first_row, first_row + num_rows).

    The payload is [num_rows, width], row-major, in the layout's dtype. Parts of one item may
    arrive in any order and more than once.
    """

    request: RequestKey
    item: ItemKey
    first_row: int
    num_rows: int
    payload: Payload


@message("rows.taken")
@dataclass(frozen=True, slots=True, kw_only=True)
class RowsTaken:
    """Prefill -> encode: the part was copied; its slot (if any) may be reused."""

    slot: int
    item: ItemKey


@message("rows.release")
@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRows:
    """Prefill -> encode: this attempt will pull the item no more. The last one to say so makes its
    rows evictable."""

    request: RequestKey
    item: ItemKey


@message("rows.lost")
@dataclass(frozen=True, slots=True, kw_only=True)
class RowsLost:
    """Encode -> prefill -> gateway: the rows are gone (evicted, or the encoder failed or died).

    The gateway encodes the item again and answers prefill with ItemMoved, or fails the request.
    """

    request: RequestKey
    item: ItemKey
    reason: str


@message("rows.moved")
@dataclass(frozen=True, slots=True, kw_only=True)
class ItemMoved:
    """Gateway -> prefill: pull the rest of the item under this, its newest, key from `encoder`."""

    request: RequestKey
    item: ItemKey
    encoder: str


# ---- admission


@message("decode.reserve")
@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Gateway -> decode: hold KV for `num_tokens` tokens; `prefill` will have the prompt's KV.

    Answered at once by Reserved or Refused; nobody waits for blocks while holding others.
    `prefix` None: neither use nor keep cached KV for this request.
    """

    request: RequestKey
    num_tokens: int
    prefill: str
    prefix: Prefix | None = None


@message("decode.reserved")
@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """Decode -> gateway: held under a lease. The first `cached_tokens` need not travel."""

    request: RequestKey
    cached_tokens: int


@message("prefill.admit")
@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Gateway -> prefill or fused worker: run this prompt. Answered by Admitted or Refused.

    `decode` names the worker that holds the reservation, None means that this worker decodes
    itself. `num_tokens` is what to hold KV for here. `first_index` is the index of the first token
    to sample: 0, or the number of tokens emitted by earlier attempts, which end the prompt.
    `cached_tokens` are at the decode worker already. `prefix` None: neither use nor keep cached KV.
    """

    request: RequestKey
    prompt: Prompt
    sampling: SamplingParams
    decode: str | None
    num_tokens: int
    first_index: int = 0
    cached_tokens: int = 0
    prefix: Prefix | None = None


@message("prefill.admitted")
@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Prefill -> gateway: everything it needs here is held. KV of the first `cached_tokens` tokens
    was there already, so it will pull no row that only they take."""

    request: RequestKey
    cached_tokens: int = 0


@message("cluster.refused")
@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Decode or prefill -> gateway: nothing is held. `never`: it cannot fit even when idle.

    Otherwise the worker owes the gateway one Room when something has been given back.
    """

    request: RequestKey
    reason: str
    never: bool


@message("cluster.room")
@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Worker -> gateway: something was given back since I refused you; try again."""

    free_tokens: int


# ---- KV: prefill -> decode, pulled


@message("kv.ready")
@dataclass(frozen=True, slots=True, kw_only=True)
class KvReady:
    """Prefill -> decode: KV of the first `num_tokens` prompt tokens exists and may be pulled."""

    request: RequestKey
    num_tokens: int


@message("kv.pull")
@dataclass(frozen=True, slots=True, kw_only=True)
class PullKv:
    """Decode -> prefill: send KV of tokens [first_token, first_token + num_tokens), all layers."""

    request: RequestKey
    first_token: int
    num_tokens: int


@message("kv.chunk")
@dataclass(frozen=True, slots=True, kw_only=True)
class KvChunk:
    """Prefill -> decode, bulk: KV of a token range x layer range.

    The payload is [2 (K, V), num_layers, num_tokens, kv_heads, head_dim] in the KV dtype; page
    layout and block size stay each worker's own business.
    """

    request: RequestKey
    first_token: int
    num_tokens: int
    first_layer: int
    num_layers: int
    payload: Payload


@message("kv.taken")
@dataclass(frozen=True, slots=True, kw_only=True)
class KvTaken:
    """Decode -> prefill: the chunk was copied; its slot (if any) may be reused."""

    slot: int
    request: RequestKey


@message("kv.handoff")
@dataclass(frozen=True, slots=True, kw_only=True)
class HandOff:
    """Prefill -> decode, after the last chunk was computed: the request's state.

    `token_ids` is the whole prompt, all of which has KV at prefill. `choices` has (choice, first
    sampled token) of every choice that goes on; that token's index is `first_index`.
    `position_delta`: rotary position of token i is i + position_delta.
    """

    request: RequestKey
    token_ids: tuple[int, ...]
    choices: tuple[tuple[int, int], ...]
    position_delta: int
    sampling: SamplingParams
    first_index: int


@message("kv.landed")
@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """Decode -> prefill: all KV and the state are here; prefill's blocks are free."""

    request: RequestKey


# ---- tokens and ends


@message("tokens")
@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Language worker -> gateway: what one step produced, one message per step and gateway."""

    runs: tuple[TokenRun, ...]


@message("tokens.prompt")
@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLogprobs:
    """Prefill -> gateway: of prompt tokens from `first_token` (1 at least: the first has none)."""

    request: RequestKey
    first_token: int
    logprobs: tuple[TokenLogprobs, ...]


@message("request.stop_choice")
@dataclass(frozen=True, slots=True, kw_only=True)
class StopChoice:
    """Gateway -> every language worker of the attempt: no more tokens of this choice are needed.

    It may come before the choice runs there. The request ends with its last choice.
    """

    request: RequestKey
    choice: int


@message("request.failed")
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed:
    """Any worker -> gateway: this attempt ended here; fields of an EpdError. Nothing is held."""

    request: RequestKey
    status: int
    code: str
    reason: str


@message("request.cancel")
@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Gateway -> every worker of the attempt: give everything back.

    Leaves a tombstone: later messages of this key are refused.
    """

    request: RequestKey


@message("request.broken")
@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFailed:
    """Prefill <-> decode: this attempt ended on my side, end it on yours without an answer."""

    request: RequestKey
