"""One checkpoint folder, and an HTTP client of an app with a scripted service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from epd.config import GatewayConfig, MediaConfig
from epd.gateway import Front, create_app
from epd.gateway.responses import Elsewhere
from epd.models.spec import Checkpoint
from tests.gateway.asking import Client
from tests.gateway.scripted import ScriptedService
from tests.prompt.folders import write_every_modality, write_folder

Serve = Callable[..., Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_folder(
        tmp_path_factory.mktemp("gateway"),
        generation={"do_sample": True, "top_k": 20, "repetition_penalty": 1.05},
    )


@pytest.fixture(scope="session")
def every(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model that takes all there is."""
    return write_every_modality(tmp_path_factory.mktemp("every"))


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))


@pytest.fixture
def serve(checkpoint: Checkpoint) -> Serve:
    """`async with serve(service, model=..., media=..., elsewhere=..., **gateway) as client`."""

    @asynccontextmanager
    async def open_client(
        service: ScriptedService,
        *,
        model: Checkpoint | None = None,
        media: MediaConfig | None = None,
        elsewhere: Elsewhere | None = None,
        **config: Any,
    ) -> AsyncIterator[httpx.AsyncClient]:
        front = Front(model or checkpoint, GatewayConfig(**config), media or MediaConfig())
        transport = httpx.ASGITransport(
            create_app(service, front, elsewhere), raise_app_exceptions=False
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://epd") as client:
            yield client
        front.close()

    return open_client


@pytest.fixture
def client(serve: Serve, every: Checkpoint) -> Client:
    """Of a gateway in front of a model that takes all there is."""
    return Client(serve, every)
