"""Assembles the HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from epd.gateway.errors import install
from epd.gateway.front import Front
from epd.gateway.path_headers import PathHeaders
from epd.gateway.routes import build_router
from epd.gateway.service import Service


def create_app(service: Service, front: Front) -> FastAPI:
    """The whole HTTP surface; the app closes `front` when it shuts down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        front.close()

    app = FastAPI(
        title="epd",
        lifespan=lifespan,
        openapi_url=None,  # no pages that the list of routes does not name
        redirect_slashes=False,  # a redirect would repeat the client's Host
    )
    app.state.service = service
    app.state.front = front
    app.include_router(build_router())
    app.add_middleware(PathHeaders)
    install(app)
    return app
