"""Real cores of prefill, decode and fused workers, joined without sockets, with a tiny model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from epd.config.sections import LanguageConfig
from epd.engine import Engine
from epd.handoff import KvReceiver, RowReceiver
from epd.models.positions import prompt_positions
from epd.prefix import prefix_of, prefix_root
from epd.transfer.incoming import Incoming
from epd.transfer.outgoing import Outgoing
from epd.transfer.ways import FRAMES, Route, route
from epd.types import Member, Prefix, Prompt, RequestKey, SamplingParams, TokenRun
from epd.wire import messages as m
from epd.wire.links import Buffer, Delivery
from epd.workers.decode import DecodeCore
from epd.workers.language import LanguageCore
from epd.workers.prefill import PrefillCore
from epd.workers.station import Handler
from tests.engine.tiny import Case, TinyLanguage

GATEWAY = "gateway"
EVERYWHERE = ("prefill", "decode")


class Model(TinyLanguage):
    """The tiny model with positions from layouts, as workers want them."""

    def positions(self, prompt: Prompt) -> tuple[torch.Tensor, float]:
        return prompt_positions(prompt, axes=3)


class Desk:
    """A station and its links in one: everything goes to the stage."""

    def __init__(self, name: str, stage: Stage) -> None:
        self.name = name
        self.links = self
        self.members = {
            n: replace(_member(n), **stage.facts.get(n, {}))
            for n in ("prefill", "decode", "encode-0")
        }
        self._stage = stage

    def send(self, to: str, message: Any, frame: Buffer | None = None) -> bool:
        self._stage.mail.append((self.name, to, message, frame))
        return True

    def route(self, name: str) -> Route:
        return route(self.members[self.name], self.members[name]) if self._stage.facts else FRAMES

    def dispatch(self, handlers: dict[type[Any], Handler], delivery: Delivery) -> None:
        handlers[type(delivery.message)](delivery.sender, delivery.message, delivery.frame)


class Stage:
    """`told` are the messages to the gateway; `pulled` counts rows that the encoder gave.

    An encoder that is `late` keeps what it is asked for until it is said to go on. `models` by role
    where they are others than the tiny one; `facts` are what their members say besides, `outgoing`
    the arena that prefill has then, and `incoming` what decode reads it with.
    """

    def __init__(
        self,
        *,
        fused: bool = False,
        models: Mapping[str, Any] | None = None,
        facts: Mapping[str, Mapping[str, Any]] | None = None,
        outgoing: Outgoing | None = None,
        incoming: Incoming | None = None,
        **config: Any,
    ) -> None:
        self.facts = facts or {}
        self.incoming = incoming
        self.outgoing = outgoing or Outgoing(arena_bytes=0)
        models = models or {"prefill": Model(), "decode": Model()}
        self.mail: deque[tuple[str, str, Any, Buffer | None]] = deque()
        self.told: list[Any] = []
        self.pulled: list[m.PullRows] = []
        self.released: list[m.ReleaseRows] = []
        self.offered: list[m.KvReady] = []
        self.late: list[m.PullRows] | None = None
        self.rows: tuple[torch.Tensor, ...] = ()
        self.cores: dict[str, PrefillCore | DecodeCore] = {}
        self._language = LanguageConfig(
            **{"kv_tokens": 1024, "max_step_tokens": 48, "rows_bytes": 1 << 20, **config}
        )
        self.engines = {"prefill": Engine(models["prefill"], self._language)}
        self.prefill = self._prefill(self.engines["prefill"])
        self.cores["prefill"] = self.prefill
        if not fused:
            self.engines["decode"] = Engine(models["decode"], self._language)
            self.cores["decode"] = self._decode(self.engines["decode"])
        self.num = 0
        self.deadline_ms = 0

    def _prefill(self, engine: Engine) -> PrefillCore:
        rows = RowReceiver(self._language.rows_bytes, 1 << 12)
        desk: Any = Desk("prefill", self)
        model: Any = engine._model
        return PrefillCore(desk, model, engine, rows, self.outgoing, 1 << 12, self._language)

    def _decode(self, engine: Engine) -> DecodeCore:
        desk: Any = Desk("decode", self)
        return DecodeCore(desk, engine, KvReceiver(engine._model.num_layers, 64), self.incoming)

    # ---- what a test does

    def ask(
        self,
        case: Case,
        sampling: SamplingParams,
        *,
        reuse_at: Sequence[str] = EVERYWHERE,
        deadline_ms: int = 0,
    ) -> RequestKey:
        """As the gateway has it: blocks at decode first, then the prompt for prefill."""
        self.deadline_ms = deadline_ms
        self.num += 1
        key, self.rows = RequestKey(f"q{self.num}", 1), case.rows
        prompt = case.prompt
        known = prefix_of(prompt, prefix_root({}, ""))
        prefix = known if "prefill" in reuse_at else None
        whole = prompt.num_tokens + sampling.n * sampling.max_tokens
        if "decode" not in self.cores:
            self._admit(key, case, sampling, prefix, None, whole, 0)
            return key
        there = known if "decode" in reuse_at else None
        reserve = m.Reserve(request=key, num_tokens=whole, prefill="prefill", prefix=there)
        self.say("decode", replace(reserve, deadline_ms=deadline_ms))
        cached = self.answers(m.Reserved)[-1].cached_tokens
        self._admit(key, case, sampling, prefix, "decode", prompt.num_tokens, cached)
        return key

    def _admit(
        self,
        key: RequestKey,
        case: Case,
        sampling: SamplingParams,
        prefix: Prefix | None,
        decode: str | None,
        num_tokens: int,
        cached: int,
    ) -> None:
        admit = m.Admit(
            request=key,
            prompt=case.prompt,
            sampling=sampling,
            decode=decode,
            num_tokens=num_tokens,
            cached_tokens=cached,
            prefix=prefix,
            deadline_ms=self.deadline_ms,
        )
        self.say("prefill", admit)

    def say(self, to: str, message: Any) -> None:
        self._core(to).receive(
            Delivery(sender=GATEWAY, incarnation="1", message=message, frame=None)
        )

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Deliver and step until nothing moves, or `until`."""
        while self.mail or any(any(core.claims) or core.stuck for core in self.cores.values()):
            while self.mail:
                self._deliver(*self.mail.popleft())
            if until():
                return
            for core in self.cores.values():
                core.step()
            for engine in self.engines.values():
                engine.check()

    def _deliver(self, sender: str, to: str, message: Any, frame: Buffer | None) -> None:
        if to == GATEWAY:
            self.told.append(message)
        elif to == "encode-0":
            self._encode(sender, message)
        else:
            if isinstance(message, m.KvReady):
                self.offered.append(message)
            view = None if frame is None else memoryview(frame)
            self._core(to).receive(
                Delivery(sender=sender, incarnation="1", message=message, frame=view)
            )

    def go_on(self) -> None:
        """The encoder sends what it was late with."""
        asked, self.late = self.late or [], None
        for pull in asked:
            self._encode("prefill", pull)

    def _core(self, name: str) -> LanguageCore:
        return self.cores[name]

    def _encode(self, sender: str, message: Any) -> None:
        if isinstance(message, m.ReleaseRows):
            self.released.append(message)
            return
        assert isinstance(message, m.PullRows)
        if self.late is not None and message.item.index > 0:
            self.late.append(message)
            return
        self.pulled.append(message)
        end = message.first_row + message.num_rows
        rows = self.rows[message.item.index][message.first_row : end]
        payload = m.Payload(dtype="float32", shape=tuple(rows.shape), nbytes=rows.nbytes)
        data = m.EmbeddingData(
            request=message.request,
            item=message.item,
            first_row=message.first_row,
            num_rows=message.num_rows,
            payload=payload,
        )
        self.mail.append(("encode-0", sender, data, rows.contiguous().numpy().tobytes()))

    # ---- what has come

    def answers(self, kind: type[Any]) -> list[Any]:
        """All of a kind that the gateway was told, what is under way to it included."""
        coming = [message for _, to, message, _ in self.mail if to == GATEWAY]
        return [message for message in [*self.told, *coming] if isinstance(message, kind)]

    def tokens(self, key: RequestKey, choice: int = 0) -> list[int]:
        runs: list[TokenRun] = [run for tokens in self.answers(m.Tokens) for run in tokens.runs]
        mine = [run for run in runs if (run.request, run.choice) == (key, choice)]
        assert [run.first_index for run in mine] == list(range(len(mine)))
        return [token for run in mine for token in run.token_ids]

    @property
    def kv_bytes_sent(self) -> int:
        return self.prefill.gauges()["kv_bytes_sent"]

    def check_nothing_held(self) -> None:
        for core in self.cores.values():
            gauges = core.gauges()
            held = ("kv_blocks_used", "host_blocks_used", "requests")
            assert not any(gauges[name] for name in held), gauges
            assert len(core._times) == 0
        rows = self.prefill.gauges()
        assert rows["row_bytes_held"] == rows["rows_merged_bytes"] == rows["bulk_sends"] == 0

    def close(self) -> None:
        for core in self.cores.values():
            core.close()


def _member(name: str) -> Member:
    return Member(
        name=name, incarnation="1", stages=(), control="", bulk="", host="", pool="", segment=""
    )
