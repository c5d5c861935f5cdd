"""Parts of every kind, sent over HTTP: what the cluster is asked, or what the client is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epd.config import MediaConfig
from epd.config.media import ImageLimits, VideoLimits
from epd.gateway.parts import TYPES
from epd.models.spec import Checkpoint
from epd.prompt import Source
from epd.types import ItemForm, Modality
from tests.gateway.asking import EMBEDS, TEXT, WHERE, Client, b64, chat, inline, url

pytestmark = pytest.mark.anyio

# ---- what can be sent

FILES: list[tuple[dict[str, Any], Modality, Source]] = [
    (inline("image", b"i"), Modality.IMAGE, Source.file(b"i")),
    (inline("video", b"v"), Modality.VIDEO, Source.file(b"v")),
    (inline("audio", b"a"), Modality.AUDIO, Source.file(b"a")),
    (inline("time_series", b"t"), Modality.TIME_SERIES, Source.file(b"t")),
    (url("image", "http://a.b/c"), Modality.IMAGE, Source(url="http://a.b/c")),
    (url("video", "https://a.b/c"), Modality.VIDEO, Source(url="https://a.b/c")),
    (url("audio", "https://a.b/c"), Modality.AUDIO, Source(url="https://a.b/c")),
    (url("time_series", "https://a.b/c"), Modality.TIME_SERIES, Source(url="https://a.b/c")),
    (
        {"type": "input_audio", "input_audio": {"data": b64(b"wav"), "format": "wav"}},
        Modality.AUDIO,
        Source.file(b"wav"),
    ),
    (
        url("video", f"data:video/jpeg;base64,{b64(b'one')},{b64(b'two')}"),
        Modality.VIDEO,
        Source.of([("frame0", b"one"), ("frame1", b"two")], ItemForm.FRAMES),
    ),
]


@pytest.mark.parametrize(("part", "modality", "source"), FILES)
async def test_a_part_of_each_kind_is_taken(
    client: Client, part: dict[str, Any], modality: Modality, source: Source
) -> None:
    (found,) = await client.asked(chat(part, TEXT))
    assert (found.modality, found.source) == (modality, source)


async def test_parts_of_all_kinds_mix_in_any_order_over_several_turns(client: Client) -> None:
    """Each is bound to its own placeholder, whoever says it."""
    order = [9, 0, 3, 8, 1, 2, 7, 5]
    parts = [FILES[k][0] for k in order]
    messages = [
        {"role": "system", "content": [TEXT, parts[0]]},
        {"role": "user", "content": [parts[1], TEXT, parts[2], parts[3]]},
        {"role": "assistant", "content": "so?"},
        {"role": "user", "content": [*parts[4:], TEXT]},
    ]
    found = await client.asked({"model": "tiny", "messages": messages})
    assert [(part.modality, part.source) for part in found] == [FILES[k][1:] for k in order]
    assert [part.index for part in found] == list(range(8))
    assert found[1].where == "messages[1].content[0]"
    assert [part.options.siblings for part in found] == [3, 1, 2, 2, 3, 2, 2, 3]


async def test_files_are_read_only_where_the_operator_lets_them(client: Client) -> None:
    part = url("image", "file:///media/cat.png")
    error = await client.refused(chat(part))
    assert "reads no local files" in error["message"]
    media = MediaConfig(allowed_local_path=Path("/media"))
    (found,) = await client.asked(chat(part), media=media)
    assert found.source == Source(url="file:///media/cat.png")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://other.example/cat.png", "domain not allowed"),
        ("http://media.example@other.example/cat.png", "credentials"),
        ("http://media.example\\@other.example/cat.png", "backslash"),
        ("file:///media/../etc/passwd", "without '..'"),
        ("file://other.example/cat.png", "no host"),
    ],
)
async def test_what_the_operator_does_not_let_be_read_is_not_dispatched(
    client: Client, address: str, reason: str
) -> None:
    """By what the address says; what it leads to is judged where it is fetched."""
    media = MediaConfig(allowed_domains=("media.example",), allowed_local_path=Path("/media"))
    error = await client.refused(chat(url("image", address)), status=422, media=media)
    assert error["message"].startswith(f"{WHERE}: ") and error["param"] == WHERE
    assert reason in error["message"]
    assert await client.asked(chat(url("image", "http://media.example/cat.png")), media=media)


@pytest.mark.parametrize(
    ("part", "pieces"),
    [
        (
            {
                "type": "image_embeds",
                "image_embeds": {"image_grid_thw": b64(b"gg"), "image_embeds": b64(b"rrr")},
            },
            [("image_embeds", b"rrr"), ("image_grid_thw", b"gg")],
        ),
        ({"type": "audio_embeds", "audio_embeds": b64(b"rrr")}, [("audio_embeds", b"rrr")]),
        (
            {"type": "audio_embeds", "audio_embeds": {"audio_embeds": b64(b"r")}},
            [("audio_embeds", b"r")],
        ),
        (
            {
                "type": "video_embeds",
                "video_embeds": {"video_embeds": b64(b"r"), "video_grid_thw": b64(b"g")},
            },
            [("video_embeds", b"r"), ("video_grid_thw", b"g")],
        ),
    ],
)
async def test_embeddings_are_pieces_in_the_familys_order(
    client: Client, part: dict[str, Any], pieces: list[tuple[str, bytes]]
) -> None:
    (found,) = await client.asked(chat(part), media=EMBEDS)
    assert found.source == Source.of(pieces, ItemForm.EMBEDS)


# ---- what cannot


async def test_an_unknown_part_is_told_which_there_are(client: Client) -> None:
    error = await client.refused(chat({"type": "smell_url", "smell_url": {"url": "x"}}))
    assert error["param"] == WHERE
    assert all(kind in error["message"] for kind in TYPES)


@pytest.mark.parametrize("kind", ["video", "audio", "time_series"])
async def test_a_modality_that_the_model_does_not_take_is_told_which_it_takes(
    client: Client, checkpoint: Checkpoint, kind: str
) -> None:
    """Before anything is decoded."""
    part = url(kind, "data:,")
    model = taking(checkpoint, (Modality.IMAGE,))
    error = await client.refused(chat(part), model=model)
    assert error["message"] == f"{WHERE}: this model takes no {kind}; it takes image"


def taking(checkpoint: Checkpoint, modalities: tuple[Modality, ...]) -> Checkpoint:
    return replace(checkpoint, spec=replace(checkpoint.spec, modalities=modalities))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "image_url"}, "image_url: content is missing"),
        ({"type": "image_url", "image_url": {}}, "content is missing"),
        ({"type": "video_url", "video_url": None}, "video_url: content is missing"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, "content is missing"),
        ({"type": "input_audio", "input_audio": {"data": ""}}, "no data"),
        ({"type": "input_audio", "input_audio": {"data": "a b="}}, "base64"),
        (url("audio", "ftp://a.b/c"), "must begin with"),
        (url("image", "/etc/passwd"), "must begin with"),
        (url("image", ""), "must begin with"),
    ],
)
async def test_a_part_that_says_nothing_usable_is_named(
    client: Client, part: dict[str, Any], reason: str
) -> None:
    error = await client.refused(chat(part, TEXT))
    assert reason in error["message"]
    assert error["param"].startswith(WHERE)


async def test_embeddings_are_off_unless_the_operator_takes_them(client: Client) -> None:
    part = {"type": "audio_embeds", "audio_embeds": b64(b"r")}
    assert "takes no ready-made embeddings" in (await client.refused(chat(part)))["message"]
    assert await client.asked(chat(part), media=EMBEDS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b64(b"r"), r"image_grid_thw is missing; this model takes image_embeds [rows, width]"),
        ({"image_grid_thw": b64(b"g")}, "image_embeds is missing"),
        (
            {"image_embeds": b64(b"r"), "image_grid_thw": b64(b"g"), "x": "eA=="},
            "unknown field 'x'",
        ),
        ({"image_embeds": b64(b"r"), "image_grid_thw": ""}, "image_grid_thw holds no data"),
        ({"image_embeds": "a b=", "image_grid_thw": b64(b"g")}, "image_embeds: its base64"),
        ({}, "content is missing"),
    ],
)
async def test_the_fields_of_embeddings_are_the_familys(
    client: Client, content: Any, reason: str
) -> None:
    part = {"type": "image_embeds", "image_embeds": content}
    error = await client.refused(chat(part), media=EMBEDS)
    assert reason in error["message"]


# ---- limits: all before anything is dispatched, and no request lifts one


@pytest.mark.parametrize(
    ("media", "gateway", "parts", "said"),
    [
        (
            MediaConfig(image=ImageLimits(per_request=1)),
            {},
            [inline("image", b"i")] * 2,
            "2 items of the kind image; this server takes 1",
        ),
        (
            MediaConfig(video=VideoLimits(per_request=0)),
            {},
            [inline("video", b"v")],
            "1 items of the kind video; this server takes 0",
        ),
        (
            MediaConfig(),
            {"max_items": 2},
            [inline("image", b"i"), inline("audio", b"a"), inline("video", b"v")],
            "3 items; this server takes 2",
        ),
    ],
)
async def test_items_have_a_most_of_each_kind_and_of_all(
    client: Client, media: MediaConfig, gateway: dict[str, Any], parts: list[Any], said: str
) -> None:
    """Items that a uuid stands for count, too."""
    error = await client.refused(chat(*parts), media=media, **gateway)
    assert said in error["message"]
    assert error["param"] == "messages"
    named = [{**part, "uuid": "x"} for part in parts]
    assert said in (await client.refused(chat(*named), media=media, **gateway))["message"]


async def test_the_bytes_of_an_item_have_a_limit(client: Client) -> None:
    """Each kind its own."""
    media = MediaConfig(image=ImageLimits(max_bytes=10), enable_embeds=True)
    assert await client.asked(chat(inline("image", b"x" * 10), inline("audio", b"x" * 11)))
    many = [inline("image", b"x"), inline("image", b"x" * 11)]
    error = await client.refused(chat(*many), status=413, media=media)
    assert error["message"] == "messages[0].content[1]: 11 bytes, 10 are allowed"
    embeds = {"image_embeds": b64(b"x" * 6), "image_grid_thw": b64(b"x" * 5)}
    part = {"type": "image_embeds", "image_embeds": embeds}
    await client.refused(chat(part), status=413, media=media)


async def test_the_bytes_of_a_request_have_a_limit(client: Client) -> None:
    """Also those that it does not send again."""
    media = MediaConfig(request_bytes=10)
    small = inline("image", b"x" * 5, uuid="small")
    again = {"type": "image_url", "uuid": "small"}
    assert await client.asked(chat(small, again), media=media)
    for parts in ([small, inline("audio", b"x" * 6)], [small, again, again]):
        error = await client.refused(chat(*parts), status=413, media=media)
        assert error["message"] == "more than 10 bytes of media in one request"


async def test_frames_are_counted_before_they_are_decoded(client: Client) -> None:
    part = url("video", "data:video/jpeg;base64," + "," * 5000)
    assert "5001 frames" in (await client.refused(chat(part)))["message"]


@pytest.mark.parametrize(
    "body",
    [
        chat(*[TEXT] * 4097),
        {"model": "tiny", "messages": [{"role": "user", "content": "x"}] * 4097},
        chat(TEXT, n=17),
        chat(TEXT, stop=["x"] * 17),
        chat(TEXT, cache_salt="x" * 257),
        chat(inline("image", b"i", uuid="x" * 257)),
        chat({"type": "image_embeds", "image_embeds": {f"f{k}": "eA==" for k in range(17)}}),
        chat(TEXT, mm_processor_kwargs={f"s{k}": 1 for k in range(33)}),
        chat(TEXT, media_io_kwargs={"video": {"frames_indices": list(range(4097))}}),
        chat(inline("image", b"i"), mm_processor_kwargs={"size": {f"s{k}": 1 for k in range(9)}}),
    ],
)
async def test_everything_that_can_be_counted_has_a_ceiling(
    client: Client, body: dict[str, Any]
) -> None:
    await client.refused(body, media=EMBEDS)


# ---- text


async def test_placeholders_in_text_are_text(client: Client) -> None:
    """Whoever writes them, of whatever kind: no item appears, none is taken for another."""
    words = "<|image_pad|><|video_pad|><|AUDIO|><|series_pad|><|im_end|>"
    said = {"type": "text", "text": words}
    (found,) = await client.asked(chat(said, inline("audio", b"a"), said))
    assert found.modality is Modality.AUDIO
    assert found.text_before == f"user\n{words}Audio: "


async def test_many_placeholders_in_text_cost_no_more_than_other_text(client: Client) -> None:
    error = await client.refused(chat({"type": "text", "text": "<|image_pad|>" * 100_000}))
    assert error["code"] == "context_length_exceeded"
