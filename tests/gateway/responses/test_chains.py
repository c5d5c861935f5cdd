"""Responses that go on with earlier ones, from any gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer

from epd.errors import Unavailable
from epd.models.spec import Checkpoint
from epd.types import FinishReason
from tests.gateway.asking import b64
from tests.gateway.conftest import Serve
from tests.gateway.responses.asking import PATH, ask, user
from tests.gateway.scripted import Last, ScriptedService

pytestmark = pytest.mark.anyio

URL = "data:image/png;base64," + b64(b"p" * 300)
IMAGE = {"type": "input_image", "image_url": URL}


class Street:
    """Gateways side by side."""

    def __init__(self) -> None:
        self.finds: dict[str, Callable[[str, str], bytes | None]] = {}
        self.drops: dict[str, Callable[[str, str], bool]] = {}
        self.asked: list[str] = []

    def door(self, name: str) -> Door:
        return Door(self, name)


class Door:
    """What one of them has of the others."""

    def __init__(self, street: Street, name: str) -> None:
        self.name = name
        self._street = street

    def answer_with(
        self, find: Callable[[str, str], bytes | None], drop: Callable[[str, str], bool]
    ) -> None:
        self._street.finds[self.name] = find
        self._street.drops[self.name] = drop

    async def recall(self, gateway: str, owner: str, response_id: str) -> bytes | None:
        self._street.asked.append(gateway)
        if gateway == "silent":
            raise Unavailable("it does not answer")
        find = self._street.finds.get(gateway)
        return None if find is None else find(owner, response_id)

    async def forget(self, gateway: str, owner: str, response_id: str) -> bool:
        if gateway == "silent":
            raise Unavailable("it does not answer")
        drop = self._street.drops.get(gateway)
        return drop is not None and drop(owner, response_id)


@pytest.fixture
def service(every: Checkpoint) -> ScriptedService:
    tokenizer = Tokenizer.from_file(str(every.path / "tokenizer.json"))
    return ScriptedService([Last(tuple(tokenizer.encode("Yes.").ids), FinishReason.LENGTH)])


def prompt(service: ScriptedService, every: Checkpoint) -> str:
    """The last one, with `*` for an item."""
    tokenizer = Tokenizer.from_file(str(every.path / "tokenizer.json"))
    texts = [
        tokenizer.decode(list(ids), skip_special_tokens=False)
        for ids in service.specs[-1].draft.text
    ]
    return "*".join(texts).replace("<|im_start|>", "<").replace("<|im_end|>\n", "> ")


async def test_what_was_said_and_answered_comes_before_what_is_new(
    serve: Serve, every: Checkpoint, service: ScriptedService
) -> None:
    """With its pictures, and without its instructions, over several turns."""
    async with serve(service, model=every) as client:
        first = ask([user(IMAGE, {"type": "input_text", "text": "A?"})], instructions="Rhyme.")
        one = (await client.post(PATH, json=first)).json()
        body = ask("B?", previous_response_id=one["id"])
        two = (await client.post(PATH, json=body)).json()
        body = ask("C?", previous_response_id=two["id"])
        three = (await client.post(PATH, json=body)).json()
    said = "<user\n*A?> <assistant\nYes.> <user\nB?> <assistant\nYes.> <user\nC?> <assistant"
    assert prompt(service, every) == said
    assert [part.source.data for part in service.specs[-1].draft.parts] == [b"p" * 300]
    assert three["previous_response_id"] == two["id"] != one["id"]


async def test_a_response_is_shown_again_until_it_is_forgotten(
    serve: Serve, every: Checkpoint, service: ScriptedService
) -> None:
    async with serve(service, model=every) as client:
        body = (await client.post(PATH, json=ask())).json()
        again = await client.get(f"{PATH}/{body['id']}")
        forgotten = await client.delete(f"{PATH}/{body['id']}")
        after = [await client.get(f"{PATH}/{body['id']}"), await client.delete(f"{PATH}/x")]
    assert again.json() == body
    assert forgotten.json() == {"id": body["id"], "object": "response", "deleted": True}
    assert [response.status_code for response in after] == [404, 404]


@pytest.mark.parametrize(
    ("said", "config"),
    [({"store": False}, {}), ({}, {"responses_bytes": 0}), ({}, {"responses_s": 1e-9})],
)
async def test_what_is_not_kept_cannot_be_gone_on_with(
    serve: Serve,
    every: Checkpoint,
    service: ScriptedService,
    said: dict[str, Any],
    config: dict[str, Any],
) -> None:
    async with serve(service, model=every, **config) as client:
        body = (await client.post(PATH, json=ask(**said))).json()
        response = await client.post(PATH, json=ask(previous_response_id=body["id"]))
    assert body["store"] == ("responses_s" in config)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "previous_response_not_found")
    assert error["param"] == "previous_response_id"


async def test_salts_keep_responses_apart(
    serve: Serve, every: Checkpoint, service: ScriptedService
) -> None:
    async with serve(service, model=every) as client:
        mine = (await client.post(PATH, json=ask(cache_salt="me"))).json()["id"]
        theirs = await client.post(PATH, json=ask(previous_response_id=mine, cache_salt="you"))
        own = await client.post(PATH, json=ask(previous_response_id=mine, cache_salt="me"))
        shown = [await client.get(f"{PATH}/{mine}{q}") for q in ("", "?cache_salt=me")]
    assert (theirs.status_code, own.status_code) == (400, 200)
    assert [response.status_code for response in shown] == [404, 200]


async def test_any_gateway_goes_on_with_what_another_keeps(
    serve: Serve, every: Checkpoint, service: ScriptedService
) -> None:
    """It asks the one that the id names, once; from then on it keeps it, too."""
    street = Street()
    async with (
        serve(service, model=every, elsewhere=street.door("g-a_1")) as here,
        serve(service, model=every, elsewhere=street.door("b")) as there,
    ):
        one = (await here.post(PATH, json=ask([user(IMAGE)]))).json()
        body = ask("B?", previous_response_id=one["id"])
        two = await there.post(PATH, json=body)
        assert prompt(service, every) == "<user\n*> <assistant\nYes.> <user\nB?> <assistant"
        del street.finds["g-a_1"]
        three = await there.post(PATH, json=body)
        shown = await there.get(f"{PATH}/{one['id']}")
    assert (two.status_code, three.status_code) == (200, 200)
    assert shown.json() == one
    assert street.asked == ["g-a_1"]
    assert two.json()["id"].endswith("_b")


async def test_any_gateway_shows_and_forgets_what_another_keeps(
    serve: Serve, every: Checkpoint, service: ScriptedService
) -> None:
    """Its own copy and the other's; for its owner only, and once."""
    street = Street()
    async with (
        serve(service, model=every, elsewhere=street.door("a")) as here,
        serve(service, model=every, elsewhere=street.door("b")) as there,
    ):
        one = (await here.post(PATH, json=ask())).json()
        other = (await here.post(PATH, json=ask(cache_salt="me"))).json()
        url = f"{PATH}/{one['id']}"
        assert (await there.get(url)).json() == one
        salted = f"{PATH}/{other['id']}"
        statuses = [(await there.delete(path)).status_code for path in (salted, url, url)]
        shown = [(await each.get(url)).status_code for each in (here, there)]
        mine = await there.delete(f"{salted}?cache_salt=me")
        silent = await there.delete(f"{PATH}/resp_1_silent")
    assert statuses == [404, 200, 404] and shown == [404, 404]
    assert (mine.status_code, silent.status_code) == (200, 503)


async def test_a_gateway_that_is_gone_has_taken_what_it_kept_with_it(
    serve: Serve, every: Checkpoint, service: ScriptedService
) -> None:
    async with serve(service, model=every, elsewhere=Street().door("a")) as client:
        gone, silent = [
            await client.post(PATH, json=ask(previous_response_id=f"resp_1_{name}"))
            for name in ("gone", "silent")
        ]
    assert (gone.status_code, silent.status_code) == (400, 503)
    assert "as long as it runs" in gone.json()["error"]["message"]
    assert service.specs == []


async def test_media_that_were_forgotten_are_told_so(
    serve: Serve, every: Checkpoint, service: ScriptedService
) -> None:
    """Newer ones took the place of the picture."""
    async with serve(service, model=every, responses_tenant_bytes=9000) as client:
        one = (await client.post(PATH, json=ask([user(IMAGE)]))).json()["id"]
        for letter in "abcdefghijklmnopqrst":
            url = "data:image/png;base64," + b64(letter.encode() * 300)
            assert (await client.get(f"{PATH}/{one}")).status_code == 200
            shown = user({"type": "input_image", "image_url": url})
            body = ask([shown], previous_response_id=None)
            assert (await client.post(PATH, json=body)).status_code == 200
        response = await client.post(PATH, json=ask(previous_response_id=one))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "media_not_found"
