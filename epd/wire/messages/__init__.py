"""The messages of epd: each is a sentence with a sender, a receiver and a promise.

A message is frozen data with a stable tag. Bytes (pixels, rows, KV) never stand in a message: they
are raw frames after it, described by its `Payload`. Receivers ignore repeats and messages of a
stale attempt. Pure: no sockets, no tensors.
"""

from __future__ import annotations

from epd.wire.messages.admission import Admit, Admitted, Refused, Reserve, Reserved, Room
from epd.wire.messages.cluster import (
    Drain,
    Forgotten,
    Heartbeat,
    HeartbeatReply,
    Holding,
    Leaving,
    Members,
    Register,
    RegisterRefused,
    Released,
    Welcome,
)
from epd.wire.messages.encode import (
    DropItem,
    EncodeItem,
    ItemDone,
    ItemFailed,
    LayoutReady,
    RunTower,
)
from epd.wire.messages.kv import (
    HandedOver,
    HandOff,
    KvChunk,
    KvPart,
    KvReady,
    KvTaken,
    PartGone,
    PullKv,
    PullPart,
)
from epd.wire.messages.recall import Forget, Found, Recall, Recalled
from epd.wire.messages.registry import PROTOCOL_VERSION, REGISTRY, Payload, message
from epd.wire.messages.rows import (
    EmbeddingData,
    ItemMoved,
    PullRows,
    ReleaseRows,
    RowsLost,
    RowsTaken,
)
from epd.wire.messages.spans import Chunk, ItemSpans, RequestSpans, RowsIn
from epd.wire.messages.tokens import (
    Cancel,
    PeerFailed,
    PromptLogprobs,
    RequestFailed,
    StopChoice,
    Tokens,
)

__all__ = [
    "PROTOCOL_VERSION",
    "REGISTRY",
    "Admit",
    "Admitted",
    "Cancel",
    "Chunk",
    "Drain",
    "DropItem",
    "EmbeddingData",
    "EncodeItem",
    "Forgotten",
    "Forget",
    "Found",
    "HandOff",
    "HandedOver",
    "Heartbeat",
    "HeartbeatReply",
    "Holding",
    "ItemDone",
    "ItemFailed",
    "ItemMoved",
    "ItemSpans",
    "KvChunk",
    "KvPart",
    "KvReady",
    "KvTaken",
    "LayoutReady",
    "Leaving",
    "Members",
    "PartGone",
    "Payload",
    "PeerFailed",
    "PromptLogprobs",
    "PullKv",
    "PullPart",
    "PullRows",
    "Recall",
    "Recalled",
    "Refused",
    "Register",
    "RegisterRefused",
    "ReleaseRows",
    "Released",
    "RequestFailed",
    "RequestSpans",
    "Reserve",
    "Reserved",
    "Room",
    "RowsIn",
    "RowsLost",
    "RowsTaken",
    "RunTower",
    "StopChoice",
    "Tokens",
    "Welcome",
    "message",
]
