"""The hand-offs E->P and P->D as pure state machines: events in, instructions out.

Four machines, one per side: `RowSender` (encode), `RowReceiver` and `KvSender` (prefill),
`KvReceiver` (decode). Every public method is an event and returns the instructions that its worker
must carry out, in order. No sockets, no clock, no tensors.
"""

from epd.handoff.instructions import (
    DropSends,
    EndChoice,
    Free,
    Instruction,
    Pin,
    Send,
    SendKv,
    SendRows,
    StartDecode,
    Unpin,
    failure,
)
from epd.handoff.kv_receiver import KvReceiver
from epd.handoff.kv_sender import KvSender
from epd.handoff.row_receiver import RowReceiver, first_rows
from epd.handoff.row_sender import RowSender
from epd.handoff.tombstones import Tombstones

__all__ = [
    "DropSends",
    "EndChoice",
    "Free",
    "Instruction",
    "KvReceiver",
    "KvSender",
    "Pin",
    "RowReceiver",
    "RowSender",
    "Send",
    "SendKv",
    "SendRows",
    "StartDecode",
    "Tombstones",
    "Unpin",
    "failure",
    "first_rows",
]
