"""Assembles the HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from epd.gateway.accounts import Accounts
from epd.gateway.errors import install
from epd.gateway.front import Front
from epd.gateway.guard import PUBLIC, Guard
from epd.gateway.openapi import describe
from epd.gateway.page import PATHS, page_routes
from epd.gateway.path_headers import PathHeaders
from epd.gateway.responses import Elsewhere, Responses
from epd.gateway.routes import install_routes
from epd.gateway.service import Service


def create_app(service: Service, front: Front, elsewhere: Elsewhere | None = None) -> FastAPI:
    """The whole HTTP surface; the app closes `front` when it shuts down.

    `elsewhere` are the cluster's other gateways, if there can be any.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        front.close()

    app = FastAPI(
        title="epd",
        lifespan=lifespan,
        openapi_url=None,  # our own document and page are routes like the others
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the client's Host
    )
    app.state.service = service
    app.state.front = front
    app.state.responses = Responses(front, elsewhere)
    install_routes(app)
    app.state.document = describe(app.routes)
    if front.config.ui:
        app.router.routes.extend(page_routes())
    app.add_middleware(PathHeaders)
    app.add_middleware(
        Guard,
        accounts=Accounts(front.config.all_keys()),
        admin_key=front.config.admin_key,
        public=PUBLIC | PATHS if front.config.ui else PUBLIC,
    )
    install(app)
    if front.config.allowed_origins:
        _allow(app, front.config.allowed_origins)
    return app


def _allow(app: FastAPI, origins: Sequence[str]) -> None:
    """Web pages of these origins may ask, and read errors too. They send no cookies: a key is all
    that this server knows its clients by.
    """
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=("retry-after",),
    )
