"""Every answer to a request that the cluster took says what was done for it, errors too."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CALL = "epd.call"
"""Where a request's scope has its Call, once it was submitted."""


class PathHeaders:
    """Adds the headers of the call's path when the others go out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start" and CALL in scope:
                headers = scope[CALL].path.headers()
                added = [(name.encode(), value.encode("latin-1")) for name, value in headers]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._app(scope, receive, add)
