"""Chats about items, asked over HTTP of a gateway whose cluster is scripted."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from epd.config import MediaConfig
from epd.models.spec import Checkpoint
from epd.prompt.draft import MediaPart
from epd.types import FinishReason
from tests.gateway.scripted import Last, ScriptedService

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve

TEXT = {"type": "text", "text": "what is it?"}
SCRIPT = [Last((65,), FinishReason.LENGTH)]
EMBEDS = MediaConfig(enable_embeds=True)
WHERE = "messages[0].content[0]"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url(kind: str, address: str, **more: Any) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": address}, **more}


def inline(kind: str, data: bytes, **more: Any) -> dict[str, Any]:
    return url(kind, f"data:application/x;base64,{b64(data)}", **more)


def chat(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": list(parts)}], **fields}


class Client:
    """Asks a gateway in front of a model that takes everything."""

    def __init__(self, serve: Serve, every: Checkpoint) -> None:
        self._serve = serve
        self._every = every

    async def asked(self, *bodies: Any, media: MediaConfig | None = None) -> list[MediaPart]:
        """What the cluster is asked to encode for the last of these."""
        service = ScriptedService(SCRIPT)
        async with self._serve(service, model=self._every, media=media) as client:
            for body in bodies:
                response = await client.post("/v1/chat/completions", json=body)
                assert response.status_code == 200, response.text
        return list(service.specs[-1].draft.parts)

    async def refused(
        self,
        *bodies: Any,
        status: int = 400,
        media: MediaConfig | None = None,
        model: Checkpoint | None = None,
        **gateway: Any,
    ) -> dict[str, Any]:
        """What the last of these is answered; the cluster hears nothing of it."""
        service = ScriptedService(SCRIPT)
        async with self._serve(
            service, model=model or self._every, media=media, **gateway
        ) as client:
            for body in bodies:
                response = await client.post("/v1/chat/completions", json=body)
        assert response.status_code == status, response.text
        assert len(service.specs) == len(bodies) - 1
        error: dict[str, Any] = response.json()["error"]
        return error

    async def refused_text(self, body: str) -> dict[str, Any]:
        """The same of one body as it stands."""
        service = ScriptedService(SCRIPT)
        async with self._serve(service, model=self._every) as client:
            response = await client.post("/v1/chat/completions", content=body)
        assert response.status_code == 400, response.text
        error: dict[str, Any] = response.json()["error"]
        return error

    async def answered(self, *bodies: Any) -> dict[str, Any]:
        """The error that the last of these is answered with, whatever became of the others."""
        async with self._serve(ScriptedService(SCRIPT), model=self._every) as client:
            for body in bodies:
                response = await client.post("/v1/chat/completions", json=body)
        assert response.status_code == 400, response.text
        error: dict[str, Any] = response.json()["error"]
        return error
