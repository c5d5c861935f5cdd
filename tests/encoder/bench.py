"""An encoder as its worker drives it, and what tests feed it with."""

from __future__ import annotations

import io
import queue
import threading
import time
from typing import Any

from PIL import Image

from epd.config import EncodeConfig, MediaConfig
from epd.encoder import Encoder, ItemBroken, ItemEncoded, ItemPrepared
from epd.errors import EpdError
from epd.models.laps import Laps
from epd.types import ItemKey, MediaOptions, Modality
from epd.wire.messages import EncodeItem
from tests.encoder.towers import PlainTowers


class Bench:
    """An encoder, its towers, and the inbox its intake threads put events into."""

    def __init__(
        self,
        *,
        media: MediaConfig | None = None,
        towers: PlainTowers | None = None,
        laps: Laps | None = None,
        **config: object,
    ) -> None:
        self.towers = towers or PlainTowers()
        self.inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.encoder = Encoder(
            self.towers,
            EncodeConfig.model_validate({"decoders": 1, **config}),
            media or MediaConfig(),
            "settings",
            self.inbox.put,
            laps=laps,
        )

    def event(self) -> object:
        """The next event of the intake."""
        return self.inbox.get(timeout=30)

    def submit(self, item: ItemKey, data: bytes | None = None, **job: Any) -> None:
        """An image job."""
        self.encoder.submit(image_job(item, **job), data)

    def broken(self, item: ItemKey, data: bytes | None = None, **job: Any) -> EpdError:
        """Submit what will be refused."""
        self.submit(item, data, **job)
        event = self.event()
        assert isinstance(event, ItemBroken)
        assert event.item == item
        return event.error

    def prepare(self, item: ItemKey, data: bytes, **job: Any) -> ItemPrepared:
        """Submit and queue for the towers."""
        self.submit(item, data, **job)
        event = self.event()
        assert isinstance(event, ItemPrepared)
        assert self.encoder.prepared(event)
        return event

    def hold_intake(self) -> None:
        """Nothing that comes gets past the processor."""
        self.towers.gate = threading.Event()

    def release_intake(self) -> None:
        """It does again."""
        assert self.towers.gate is not None
        self.towers.gate.set()

    def settle(self) -> None:
        """Until no more than one job is in an intake thread's hands."""
        deadline = time.monotonic() + 30
        while self.encoder.gauges()["intake_jobs"] > 1:
            assert time.monotonic() < deadline

    def held(self) -> dict[str, int]:
        """The gauges of what is held that no thread changes behind the test's back."""
        gauges = self.encoder.gauges().items()
        others = {"intake_jobs", "encoded", "work_cost"}
        others |= {"cache_bytes", "cache_most_bytes", "cache_hits", "cache_misses"}
        return {k: v for k, v in gauges if k not in others and not k.endswith("_ms")}

    def run(self) -> list[ItemEncoded | ItemBroken]:
        """Steps until there is nothing to do."""
        results: list[ItemEncoded | ItemBroken] = []
        while self.encoder.has_work:
            results += self.encoder.step()
        assert self.encoder.step() == []
        return results


def key(index: int, attempt: int = 0) -> ItemKey:
    """An item of one request."""
    return ItemKey("r", index, attempt)


def image_job(
    item: ItemKey,
    *,
    url: str | None = None,
    text_before: str = "",
    salt: str = "",
    options: MediaOptions | None = None,
    wanted: bool = False,
    hold: bool = False,
    cost: int = 1,
    deadline_ms: int = 0,
) -> EncodeItem:
    """The message that starts an image."""
    return EncodeItem(
        item=item,
        modality=Modality.IMAGE,
        url=url,
        text_before=text_before,
        options=options or MediaOptions(),
        salt=salt,
        wanted=wanted,
        hold=hold,
        cost=cost,
        deadline_ms=deadline_ms,
    )


def picture(width: int, height: int = 2, shade: int = 7) -> bytes:
    """A PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()
