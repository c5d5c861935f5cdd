"""A gateway on a port whose cluster is scripted: what the page sees of it, a test decides."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from epd.config import GatewayConfig, MediaConfig
from epd.gateway import Front, create_app
from epd.models.spec import Checkpoint
from epd.observe import Path
from epd.types import Activity, Modality, Origin, Span, Stage
from tests.gateway.scripted import ScriptedService


def worker(name: str, stage: str, **more: Any) -> dict[str, Any]:
    """A row of /cluster."""
    load: dict[str, Any] = {"requests": 1, "kv_used": 0.25, "kv_cached": 0.5}
    if stage == "encode":
        load = {"items": 2, "queued_items": 1, "cache_hits": 3, "cache_misses": 1}
        load |= {"cache_bytes": 64 << 20, "cache_most_bytes": 256 << 20}
    about = {"name": name, "stages": [stage], "state": "serving", "age_s": 5.0, "pid": 1}
    return {**about, "host": "h", **load, **more}


def workers() -> list[dict[str, Any]]:
    """Of a cluster 2E1P1D."""
    encoders = [worker(f"encode-{index}", "encode", pid=10 + index) for index in range(2)]
    return [*encoders, worker("prefill-0", "prefill"), worker("decode-0", "decode")]


def span(activity: Activity, began: float, ms: float) -> Span:
    return Span(activity=activity, ago_ms=1000 - began, ms=ms)


def way() -> Path:
    """A picture's and a question's, with every activity there is."""
    path = Path.of("r", 0.0, (Modality.IMAGE,))
    path.sent_item(0, "encode-1")
    spans = [
        span(Activity.QUEUE, 1, 2),
        span(Activity.FETCH, 2, 10),
        span(Activity.DECODE, 12, 5),
        span(Activity.PREPROCESS, 17, 8),
        span(Activity.ENCODE, 25, 20),
    ]
    path.encoded("encode-1", 0, spans, 1.0, origin=Origin.TOWER, num_bytes=9, batch_items=1)
    path.laid_out = 0.024
    path.sent_request("r", 1, "prefill-0", "decode-0")
    path.pulled("prefill-0", 0, span(Activity.TRANSFER, 45, 2), 1.0, num_rows=16, num_bytes=64)
    spans = [
        span(Activity.QUEUE, 26, 1),
        span(Activity.WAIT, 32, 15),
        span(Activity.PREFILL, 27, 25),
    ]
    path.worked("prefill-0", Stage.PREFILL, spans, 1.0, num_bytes=0)
    path.computed("prefill-0", [(5, 973, 5), (17, 952, 20)], 1.0)
    path.first_token = 0.07
    spans = [
        span(Activity.TRANSFER, 48, 24),
        span(Activity.HANDOFF, 69, 3),
        span(Activity.DECODE, 72, 400),
    ]
    path.worked("decode-0", Stage.DECODE, spans, 1.0, num_bytes=99)
    path.ended = 0.472
    return path


@dataclass
class PageService(ScriptedService):
    """Has workers, which a test may take away, and a way for every request."""

    path: Path = field(default_factory=way)
    there: list[dict[str, Any]] = field(default_factory=workers)

    def cluster(self) -> dict[str, Any]:
        about = {"model": "tiny", "gateway": "gateway-0", "ready": True}
        return {**about, "requests": 0, "waiting": 0, "workers": list(self.there)}


class Site:
    """Serves until stop()."""

    def __init__(self, checkpoint: Checkpoint, service: ScriptedService, **gateway: Any) -> None:
        self.service = service
        self._front = Front(checkpoint, GatewayConfig(**gateway), MediaConfig())
        app = create_app(service, self._front)
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
        (port,) = self._ports()
        self.url = f"http://127.0.0.1:{port}/"

    def _ports(self) -> Sequence[int]:
        return [
            socket.getsockname()[1] for server in self._server.servers for socket in server.sockets
        ]

    def stop(self) -> None:
        """Whoever is still answered is left."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._front.close()
