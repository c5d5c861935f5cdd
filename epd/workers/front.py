"""The gateway process from start to stop: sockets bound first, then HTTP, then goodbye."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from epd.config import Config
from epd.errors import ConfigError, EpdError
from epd.gateway import Front, create_app
from epd.models.spec import Checkpoint, read_checkpoint
from epd.observe import Metrics, open_traces, setup
from epd.workers.gateway import Node
from epd.workers.heap import freeze_objects
from epd.workers.ready import say_error, say_ready

log = logging.getLogger(__name__)

GRACE_S = 3.0
"""Running requests may end by themselves for at least so long after a stop signal."""

GOODBYE_S = 2
"""Then they get an error, and this long to be told."""

BACKLOG = 1024


def run_gateway(config: Config, *, ready_fd: int | None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    setup(config.log_level, config.name or "gateway-0", config.log_format)
    try:
        checkpoint = read_checkpoint(
            config.model,
            max_context=config.language.max_context,
            dummy=config.load_format == "dummy",
        )
        http = bind(config.gateway.host, config.gateway.port)
        asyncio.run(_serve(config, checkpoint, http, ready_fd))
    except EpdError as error:
        log.error("%s", error.message)
        say_error(ready_fd, error.message)
        return 2
    return 0


def bind(host: str, port: int) -> socket.socket:
    """The HTTP socket; ConfigError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, or asyncio leaves Nagle's algorithm on: tokens would wait 40 ms for an ACK.
    http = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    http.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        http.bind((host, port))
        http.listen(BACKLOG)
    except OSError as error:
        http.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return http


class _Server(uvicorn.Server):
    """Says when it serves, and ends the requests that outlast their grace."""

    def __init__(
        self, config: uvicorn.Config, serving: asyncio.Event, node: Node, grace_s: float
    ) -> None:
        super().__init__(config)
        self._grace_s = grace_s
        self._serving = serving
        self._node = node

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Without raising the signal again, as uvicorn does: this process has goodbyes to say."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._serving.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        grace = asyncio.get_running_loop().call_later(self._grace_s, self._node.end_all)
        await super().shutdown(sockets)
        grace.cancel()


async def _serve(
    config: Config, checkpoint: Checkpoint, http: socket.socket, ready_fd: int | None
) -> None:
    traces = open_traces(config.gateway.otlp_endpoint, config.name or "gateway-0")
    node = Node(config, checkpoint, Metrics(), traces)
    node.links.start()
    front = Front(checkpoint, config.gateway, config.media)
    app = create_app(node, front, node.recalls)
    serving = asyncio.Event()
    grace_s = max(GRACE_S, config.drain_s)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=math.ceil(grace_s) + GOODBYE_S,
            server_header=False,
        ),
        serving,
        node,
        grace_s,
    )
    stop_on_signals(server)
    try:
        async with asyncio.TaskGroup() as tasks:
            lasting = [tasks.create_task(node.roster.beat()), tasks.create_task(_follow(node))]
            tasks.create_task(_say_ready(serving, http, node, ready_fd))
            await server.serve(sockets=[http])
            for task in lasting:
                task.cancel()
    finally:
        node.leave()
        await asyncio.to_thread(traces.close)


async def _follow(node: Node) -> None:
    """Raises what broke the node."""
    await node.broken


def stop_on_signals(server: uvicorn.Server) -> None:
    """Before uvicorn's own handlers, and after them, when it raises the signal once more."""

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


async def _say_ready(
    serving: asyncio.Event, http: socket.socket, node: Node, ready_fd: int | None
) -> None:
    await serving.wait()
    host, port = http.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    freeze_objects()
    say_ready(ready_fd, url=f"http://{shown}:{port}", control=node.links.control)
    log.info("ready url=http://%s:%d", shown, port)
