"""Names that clients give to items: good for one tenant, for a while, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.gateway.known import KnownSources, Name
from epd.prompt import Source
from epd.types import ItemForm, Modality
from tests.gateway.asking import EMBEDS, WHERE, Client, b64, chat, inline, url

IMAGE = Modality.IMAGE


# ---- the memory


def name(uuid: str, salt: str = "") -> Name:
    return Name(salt, IMAGE, uuid)


def memory(most_bytes: int = 1 << 20, most_entries: int = 100) -> KnownSources:
    return KnownSources(most_bytes=most_bytes, most_entries=most_entries)


def test_what_was_used_longest_ago_goes_first() -> None:
    known = memory(most_entries=2)
    known.put([(name("a"), Source.file(b"a")), (name("b"), Source.file(b"b"))])
    assert known.get(name("a")) is not None
    known.put([(name("c"), Source.file(b"c"))])
    assert known.get(name("b")) is None
    assert known.get(name("a")) == Source.file(b"a")


def test_a_name_given_again_means_the_new_source() -> None:
    """And the old one takes no room any more."""
    known = memory()
    known.put([(name("a"), Source.file(b"x" * 1000))])
    known.put([(name("a"), Source.file(b"y"))])
    assert known.get(name("a")) == Source.file(b"y")
    assert known.num_bytes < 1000 and len(known) == 1


def test_a_source_that_is_too_large_is_not_kept_and_the_old_one_is_gone() -> None:
    """A name must never mean what its tenant has replaced."""
    known = memory(most_bytes=2000)
    known.put([(name("a"), Source.file(b"x"))])
    known.put([(name("a"), Source.file(b"x" * 3000))])
    assert known.get(name("a")) is None
    assert known.num_bytes == 0


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["", "s"]), st.integers(0, 900)))
)
def test_the_memory_keeps_its_bounds(puts: list[tuple[str, str, int]]) -> None:
    """Entries of nothing but a name have a cost, too."""
    known = memory(most_bytes=2000, most_entries=3)
    for uuid, salt, size in puts:
        known.put([(name(uuid, salt), Source.file(bytes(size)))])
        assert known.num_bytes <= 2000 and len(known) <= 3


# ---- over HTTP


def again(kind: str, uuid: str = "cat") -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {}, "uuid": uuid}


CAT = inline("image", b"cat", uuid="cat")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "part",
    [
        again("image"),
        {"type": "image_url", "uuid": "cat"},
        {"type": "image_url", "image_url": None, "uuid": "cat"},
        {"type": "image_url", "image_url": {"url": None}, "uuid": "cat"},
    ],
)
async def test_a_named_item_is_not_sent_again(client: Client, part: dict[str, Any]) -> None:
    """In the same request or in a later one; what it is read with is each part's own."""
    (found,) = await client.asked(
        chat(CAT), chat(part, mm_processor_kwargs={"max_pixels": 784, "min_pixels": 1})
    )
    assert found.source == Source.file(b"cat")
    assert found.options.processor == '{"max_pixels":784,"min_pixels":1}'
    first, second = await client.asked(chat(CAT, part))
    assert first.source == second.source == Source.file(b"cat")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("sent", "named", "source"),
    [
        (url("video", "https://a.b/c", uuid="cat"), again("video"), Source(url="https://a.b/c")),
        (
            {"type": "input_audio", "input_audio": {"data": b64(b"a")}, "uuid": "cat"},
            again("audio"),
            Source.file(b"a"),
        ),
        (
            url("video", f"data:video/jpeg;base64,{b64(b'x')}", uuid="cat"),
            again("video"),
            Source.of([("frame0", b"x")], ItemForm.FRAMES),
        ),
        (
            {"type": "audio_embeds", "audio_embeds": b64(b"r"), "uuid": "cat"},
            {"type": "audio_embeds", "uuid": "cat"},
            Source.of([("audio_embeds", b"r")], ItemForm.EMBEDS),
        ),
    ],
)
async def test_a_name_keeps_its_form(
    client: Client, sent: dict[str, Any], named: dict[str, Any], source: Source
) -> None:
    (found,) = await client.asked(chat(sent), chat(named), media=EMBEDS)
    assert found.source == source


@pytest.mark.anyio
async def test_a_name_given_again_stands_for_the_new_item(client: Client) -> None:
    dog = inline("image", b"dog", uuid="cat")
    (found,) = await client.asked(chat(CAT), chat(dog), chat(again("image")))
    assert found.source == Source.file(b"dog")
    parts = await client.asked(chat(CAT, again("image"), dog, again("image")))
    assert [part.source.data for part in parts] == [b"cat", b"cat", b"dog", b"dog"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (chat(CAT, cache_salt="one"), chat(again("image"), cache_salt="two")),
        (chat(CAT, cache_salt="one"), chat(again("image"))),
        (chat(CAT), chat(again("image"), cache_salt="one")),
        (chat(CAT), chat(again("image", "Cat"))),
        (chat(CAT), chat(again("video"))),
        (chat(again("image"), CAT), chat(again("image"), CAT)),
        (chat(CAT, max_tokens=0), chat(again("image"))),
    ],
    ids=["tenants", "from none", "to none", "case", "modality", "too early", "refused"],
)
async def test_a_name_says_nothing_elsewhere(client: Client, first: Any, second: Any) -> None:
    """Another tenant, another kind, before it was given, or in a request that was refused."""
    error = await client.answered(first, second)
    assert "not known (any more)" in error["message"]
    assert error["param"].startswith("messages[0].content[")


@pytest.mark.anyio
async def test_tenants_may_use_the_same_name_for_different_items(client: Client) -> None:
    """Neither sees nor replaces the other's."""
    dog = inline("image", b"dog", uuid="cat")
    bodies = [chat(CAT, cache_salt="one"), chat(dog, cache_salt="two")]
    (one,) = await client.asked(*bodies, chat(again("image"), cache_salt="one"))
    (two,) = await client.asked(*bodies, chat(again("image"), cache_salt="two"))
    assert (one.source.data, two.source.data) == (b"cat", b"dog")


@pytest.mark.anyio
@pytest.mark.parametrize("uuid", ["../../etc/passwd", "/etc/passwd", "a\x00b", "\u202e", "%2e%2e"])
async def test_a_name_is_no_path_and_no_key(client: Client, uuid: str) -> None:
    """It reaches nobody: the cluster hears of the item's bytes alone."""
    (found,) = await client.asked(chat({**CAT, "uuid": uuid}))
    (same,) = await client.asked(chat(inline("image", b"cat")))
    assert found == same


@pytest.mark.anyio
async def test_a_gateway_may_remember_nothing(client: Client) -> None:
    error = await client.refused(chat(CAT), chat(again("image")), known_sources=0)
    assert error["message"] == f"{WHERE}: its uuid 'cat' is not known (any more)"
