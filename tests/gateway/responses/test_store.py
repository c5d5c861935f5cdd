"""What is kept of responses, and for how long."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.errors import BadRequest
from epd.gateway.responses.shelf import OVERHEAD, Shelf
from epd.gateway.responses.store import Packed, ResponseStore

MEDIA = "data:image/png;base64," + "A" * 1000
ITEMS: list[dict[str, Any]] = [
    {
        "type": "message",
        "role": "user",
        "content": [
            {"type": "input_text", "text": "B" * 1000},
            {"type": "input_image", "image_url": MEDIA},
            {"type": "video_url", "video_url": {"url": MEDIA}},
            {"type": "input_audio", "input_audio": {"data": "C" * 1000, "format": "wav"}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        ],
    }
]
RESPONSE = {"id": "resp_1", "output": []}


class Clock:
    """Time that is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> ResponseStore:
    return ResponseStore(most_bytes=100_000, tenant_bytes=20_000, seconds=60.0, clock=clock)


def test_a_conversation_is_found_again_as_it_was(store: ResponseStore) -> None:
    """Equal media are kept once, and text stays where it is."""
    packed = store.pack("me", ITEMS)
    text = json.dumps(packed.items)
    assert "AAAA" not in text and "CCCC" not in text and "BBBB" in text and "a.png" in text
    store.put("me", RESPONSE, packed)
    record = store.find("me", "resp_1")
    assert record is not None and record.response == RESPONSE
    assert store.unpack("me", record.conversation) == ITEMS
    assert store.num_bytes < 2000 + 2 * len(text) + 4 * OVERHEAD


def test_a_tenant_finds_only_what_is_its_own(store: ResponseStore) -> None:
    store.put("me", RESPONSE, store.pack("me", ITEMS))
    assert store.find("you", "resp_1") is None
    with pytest.raises(BadRequest, match="not kept any more"):
        store.unpack("you", store.pack("me", ITEMS))


def test_nothing_is_kept_longer_than_the_time(store: ResponseStore, clock: Clock) -> None:
    store.put("me", RESPONSE, Packed())
    clock.now = 59.0
    assert store.find("me", "resp_1") is not None
    clock.now = 60.0
    assert store.find("me", "resp_1") is None
    assert store.num_bytes == 0


def test_media_that_were_forgotten_are_told_so(store: ResponseStore, clock: Clock) -> None:
    """The conversation is there, but nobody is answered as if there had been no picture."""
    packed = store.pack("me", ITEMS)
    clock.now = 50.0
    store.put("me", RESPONSE, packed)
    clock.now = 70.0
    record = store.find("me", "resp_1")
    assert record is not None
    with pytest.raises(BadRequest) as caught:
        store.unpack("me", record.conversation)
    assert caught.value.code == "media_not_found"
    assert caught.value.param == "previous_response_id"


def test_another_gateway_keeps_the_same(store: ResponseStore, clock: Clock) -> None:
    store.put("me", RESPONSE, store.pack("me", ITEMS))
    exported = store.export("me", "resp_1")
    assert exported is not None and store.export("you", "resp_1") is None
    other = ResponseStore(most_bytes=100_000, tenant_bytes=50_000, seconds=60.0, clock=clock)
    other.take("me", exported)
    record = other.find("me", "resp_1")
    assert record is not None and record.response == RESPONSE
    assert other.unpack("me", record.conversation) == ITEMS


def test_no_key_of_media_is_a_response(store: ResponseStore) -> None:
    packed = store.pack("me", ITEMS)
    key = packed.items[0]["content"][1]["image_url"]["$media"]
    assert store.find("me", key) is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.sampled_from("xyzuvw"), st.integers(0, 900), st.integers(0, 5)
    ),
    max_size=40,
)


@given(STEPS)
def test_a_shelf_keeps_the_last_within_its_bounds(steps: list[tuple[str, str, int, int]]) -> None:
    """Compared with a list of all that was put, from the end."""
    shelf: Shelf[int] = Shelf(most_bytes=3000, tenant_bytes=2000, seconds=20.0)
    now = 0.0
    put: dict[tuple[str, str], tuple[int, int, float]] = {}
    for number, (tenant, name, size, pause) in enumerate(steps):
        now += pause
        fits = shelf.put(tenant, name, number, size, now)
        assert fits == (size + OVERHEAD + 2 <= 2000)
        put.pop((tenant, name), None)
        if fits:
            put[tenant, name] = (number, size + OVERHEAD + 2, now)
        assert shelf.num_bytes <= 3000
    for tenant, name in put:
        found = shelf.get(tenant, name, now)
        number, _, since = put[tenant, name]
        assert found in (None, number)
        if now - since >= 20.0:
            assert found is None
    if put:
        tenant, name = list(put)[-1]
        assert shelf.get(tenant, name, put[tenant, name][2]) == put[tenant, name][0] or (
            now - put[tenant, name][2] >= 20.0
        )
