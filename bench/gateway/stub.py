"""A worker that answers at once: a seat in the cluster as real ones have, and no model behind it.

Every step gives every running request its next token, in one message, as an engine does; but a step
takes no time.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epd.config import load_config
from epd.models.spec import Checkpoint, read_checkpoint
from epd.transfer.segments import host_id
from epd.types import FinishReason, Member, RequestKey, Stage, TokenRun
from epd.wire.inbox import Inbox
from epd.wire.links import Delivery
from epd.wire.messages import (
    PROTOCOL_VERSION,
    Admit,
    Admitted,
    Cancel,
    Holding,
    Register,
    Tokens,
)
from epd.wire.zmq_links import ZmqLinks
from epd.workers.lookup import Lookup
from epd.workers.pulse import Pulse
from epd.workers.station import Station
from epd.workers.turns import Claims, Turn

TICK_S = 0.25
MOST_TOKENS = 1 << 20


@dataclass
class Running:
    """One request: who wants its tokens, and how many there are still to come."""

    gateway: str
    max_tokens: int
    made: int = 0


class StubCore:
    """Admits everything; the tokens are `token_ids` in turn."""

    def __init__(self, station: Station, token_ids: tuple[int, ...]) -> None:
        self._station = station
        self._token_ids = token_ids
        self._running: dict[RequestKey, Running] = {}

    @property
    def claims(self) -> Claims:
        return Claims(running=len(self._running))

    @property
    def stuck(self) -> bool:
        return False

    def receive(self, delivery: Delivery) -> None:
        message = delivery.message
        if isinstance(message, Admit):
            self._running[message.request] = Running(delivery.sender, message.sampling.max_tokens)
            self._station.send(delivery.sender, Admitted(request=message.request))
        elif isinstance(message, Cancel):
            self._running.pop(message.request, None)

    def step(self, turn: Turn = Turn.ALONE) -> None:
        runs: dict[str, list[TokenRun]] = {}
        for key, running in list(self._running.items()):
            runs.setdefault(running.gateway, []).append(self._run(key, running))
        for gateway, of_gateway in runs.items():
            self._station.send(gateway, Tokens(runs=tuple(of_gateway)))

    def _run(self, key: RequestKey, running: Running) -> TokenRun:
        first = running.made
        running.made += 1
        ended = running.made >= running.max_tokens
        if ended:
            del self._running[key]
        return TokenRun(
            request=key,
            first_index=first,
            token_ids=(self._token_ids[first % len(self._token_ids)],),
            finish_reason=FinishReason.LENGTH if ended else None,
        )

    def gateway_lost(self, name: str) -> None:
        self._running = {k: one for k, one in self._running.items() if one.gateway != name}

    def holding(self, gateway: str) -> Holding:
        mine = tuple(k for k, one in self._running.items() if one.gateway == gateway)
        return Holding(requests=mine, items=())

    def peer_lost(self, name: str) -> None: ...

    def local(self, event: object) -> None: ...

    def gauges(self) -> dict[str, int]:
        return {}

    def close(self) -> None: ...


def plain_tokens(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Ids of tokens that are a few plain characters, as most of an answer are."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
    ids: tuple[int, ...] = tuple(tokenizer.encode("The quick brown fox jumps over it. ").ids)
    return ids


def run(model: str, gateway: str, step_s: float) -> None:
    """Take part until a signal."""
    config = load_config(None, [])
    checkpoint = read_checkpoint(model)
    fingerprint = {
        **checkpoint.fingerprint(),
        "protocol": str(PROTOCOL_VERSION),
        "dtype": "float32",
    }
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    inbox, pulse = Inbox(capacity=100_000), Pulse()
    with tempfile.TemporaryDirectory(prefix="epd-stub-") as folder:
        links = ZmqLinks("stub-0", f"ipc://{folder}", config.wire, inbox, on_io=pulse.answer)
        member = Member(
            name=links.name,
            incarnation=links.incarnation,
            stages=(Stage.ENCODE, Stage.PREFILL, Stage.DECODE),
            control=links.control,
            bulk=links.bulk,
            host=host_id(),
            pool="stub",
            kv_tokens=MOST_TOKENS,
            max_context=checkpoint.max_context,
        )
        register = Register(member=member, fingerprint=fingerprint, via="")
        lookup = Lookup((gateway,), config.wire.resolve_s)
        station = Station(links, config.wire, lookup, register, pulse, wants=lambda other: False)
        core = StubCore(station, plain_tokens(checkpoint))
        station.attach(core)
        links.start()
        _loop(station, core, inbox, step_s, lambda: stopping)
        station.leave()
        links.close()


def _loop(
    station: Station, core: StubCore, inbox: Inbox, step_s: float, stopping: Callable[[], bool]
) -> None:
    ticked = stepped = 0.0
    while not stopping():
        for event in inbox.take(wait=not any(core.claims), timeout=TICK_S):
            station.handle(event)
        now = time.monotonic()
        if now - stepped >= step_s:
            stepped = now
            core.step()
        else:
            time.sleep(min(step_s, stepped + step_s - now))
        station.settle()
        if now - ticked >= TICK_S:
            ticked = now
            station.tick()


def _parse() -> Any:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway.stub")
    parser.add_argument("model", type=Path)
    parser.add_argument("gateway")
    parser.add_argument("--step-s", type=float, default=0.0)
    return parser.parse_args()


if __name__ == "__main__":
    args = _parse()
    run(str(args.model), args.gateway, args.step_s)
