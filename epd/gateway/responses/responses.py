"""Responses from their bodies to what is kept of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from epd.errors import BadRequest, NotFound
from epd.gateway.front import Front, Prepared, read_body
from epd.gateway.places import called, named_as
from epd.gateway.responses.elsewhere import Elsewhere
from epd.gateway.responses.items import Item
from epd.gateway.responses.reading import NAMES, as_chat, as_request, read_input, settings
from epd.gateway.responses.schemas import ResponseRequest
from epd.gateway.responses.shape import ResponseShape
from epd.gateway.responses.store import Packed, ResponseStore


class Responses:
    """What this gateway keeps is found from any gateway: its name is part of a response's id."""

    def __init__(self, front: Front, elsewhere: Elsewhere | None = None) -> None:
        config = front.config
        self._front = front
        self._elsewhere = elsewhere
        self._keeps = config.responses_bytes > 0
        self._store = ResponseStore(
            most_bytes=config.responses_bytes,
            tenant_bytes=config.responses_tenant_bytes,
            seconds=config.responses_s,
        )
        if elsewhere is not None:
            elsewhere.answer_with(self._store.export, self._store.drop)

    async def before(self, raw: bytes, tenant: str) -> None:
        """What another gateway keeps of the conversation is fetched."""
        if b'"previous_response_id"' in raw and self._elsewhere is not None:
            body = await asyncio.to_thread(read_body, ResponseRequest, raw)
            if body.previous_response_id is not None:
                await self._fetch(body.previous_response_id, owner_of(tenant, body.cache_salt))

    def parse(self, raw: bytes, tenant: str, *, model_name: str) -> Prepared:
        """A chat of all that was said so far. EpdError names what is wrong as it was written."""
        body = read_body(ResponseRequest, raw)
        body.check()
        passed = body.passed_on()
        owner = owner_of(tenant, body.cache_salt)
        before, history = self._history(owner, body.previous_response_id)
        chat = as_chat(body, history)

        def rename(message: int | None, part: int | None) -> str:
            place = "input" if message is None else chat.places[message]
            inside = part is not None and place.startswith("input[")
            return f"{place}.content[{part}]" if inside else place

        shape = ResponseShape(
            body,
            gateway="" if self._elsewhere is None else self._elsewhere.name,
            texts=self._front.builder.token_texts,
        )
        with named_as(rename, NAMES):
            request = as_request(body, passed, chat, model_name)
            prepared = self._front.of_chat(request, tenant, shape, model_name=model_name)
        kept = body.kept and self._keeps
        sampling = prepared.spec.sampling
        shape.settings = settings(body, sampling, model_name=model_name, kept=kept)
        if kept:
            new = self._store.pack(owner, read_input(body))
            said = Packed(
                items=before.items + new.items, num_bytes=before.num_bytes + new.num_bytes
            )
            shape.keep = lambda response: self._store.put(
                owner, response, said.and_then(response["output"])
            )
        field = called(prepared.grammar_field, NAMES) or prepared.grammar_field
        return replace(prepared, grammar_field=field)

    async def find(self, response_id: str, tenant: str, salt: str) -> dict[str, Any]:
        """A response that is kept here or elsewhere."""
        owner = owner_of(tenant, salt)
        await self._fetch(response_id, owner)
        record = self._store.find(owner, response_id)
        if record is None:
            raise NotFound(_not_kept(response_id), param="response_id")
        return record.response

    async def forget(self, response_id: str, tenant: str, salt: str) -> None:
        """Here, and at the gateway that made it. NotFound unless one of them kept it."""
        owner = owner_of(tenant, salt)
        gone = self._store.drop(owner, response_id)
        gateway = self._keeper(response_id)
        if self._elsewhere is not None and gateway:
            gone = await self._elsewhere.forget(gateway, owner, response_id) or gone
        if not gone:
            raise NotFound(_not_kept(response_id), param="response_id")

    def _keeper(self, response_id: str) -> str:
        """The other gateway that the id names; "" where it names this one, or none."""
        gateway = response_id.removeprefix("resp_").partition("_")[2]
        mine = self._elsewhere is None or gateway == self._elsewhere.name
        return "" if mine else gateway

    async def _fetch(self, response_id: str, owner: str) -> None:
        """Keep here what the gateway keeps that the id names."""
        gateway = self._keeper(response_id)
        if self._elsewhere is None or not gateway:
            return
        if self._store.find(owner, response_id) is not None:
            return
        found = await self._elsewhere.recall(gateway, owner, response_id)
        if found is not None:
            await asyncio.to_thread(self._store.take, owner, found)

    def _history(self, owner: str, response_id: str | None) -> tuple[Packed, list[Item]]:
        if response_id is None:
            return Packed(), []
        record = self._store.find(owner, response_id)
        if record is None:
            raise BadRequest(
                f"{_not_kept(response_id)}: send the conversation again instead",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return record.conversation, self._store.unpack(owner, record.conversation)


def owner_of(tenant: str, salt: str | None) -> str:
    """What a tenant calls its own stays apart by `cache_salt`, as everything that is cached."""
    return f"{tenant}\0{salt or ''}"


def _not_kept(response_id: str) -> str:
    return (
        f"no response {response_id[:100]!r} is kept (any more): they are kept for a while by the "
        "gateway that made them, as long as it runs"
    )
