"""Fields beyond OpenAI's, as users of other servers know them: what each does to an answer."""

from __future__ import annotations

from pathlib import Path as Folder
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from epd.observe import Path
from epd.types import FinishReason, Modality
from tests.gateway.conftest import Serve
from tests.gateway.scripted import NUM_CACHED, PROMPT, Last, ScriptedService, Step
from tests.gateway.test_routes import chat, events, script
from tests.prompt.folders import write_folder

pytestmark = pytest.mark.anyio

URL = "/v1/chat/completions"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% if loudly %} LOUD{% endif %}{% endif %}"
)


def steps(tokenizer: Tokenizer, text: str, reason: FinishReason) -> list[Step]:
    """One token per run; the last one comes with the reason."""
    *ids, last = tokenizer.encode(text).ids
    return [*([one] for one in ids), Last((last,), reason)]


async def text_of(client: httpx.AsyncClient, **fields: Any) -> str:
    """The whole answer's text, which a stream's pieces join to."""
    whole = await client.post(URL, json=chat(**fields))
    assert whole.status_code == 200, whole.text
    *chunks, _ = events(await client.post(URL, json=chat(stream=True, **fields)))
    text: str = whole.json()["choices"][0]["message"]["content"]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text
    return text


@pytest.mark.parametrize(
    ("skips", "text"), [(None, "a b"), (True, "a b"), (False, "a<|im_start|> b")]
)
async def test_special_tokens_are_skipped_unless_they_are_asked_for(
    serve: Serve, tokenizer: Tokenizer, skips: bool | None, text: str
) -> None:
    service = ScriptedService(steps(tokenizer, "a<|im_start|> b", FinishReason.LENGTH))
    async with serve(service) as client:
        assert await text_of(client, skip_special_tokens=skips) == text


@pytest.mark.parametrize(("shows", "text"), [(None, "zz"), (False, "zz"), (True, "zzqx")])
async def test_a_stop_string_is_cut_off_unless_it_is_asked_for(
    serve: Serve, tokenizer: Tokenizer, shows: bool | None, text: str
) -> None:
    service = ScriptedService(steps(tokenizer, "zzqx!!", FinishReason.LENGTH))
    async with serve(service) as client:
        assert await text_of(client, stop=["qx"], include_stop_str_in_output=shows) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "hi"),
        ({"include_stop_str_in_output": True}, "hi!"),
        ({"skip_special_tokens": False}, "hi"),
        ({"skip_special_tokens": False, "include_stop_str_in_output": True}, "hi!"),
    ],
)
async def test_so_is_a_token_that_stops(
    serve: Serve, tokenizer: Tokenizer, fields: dict[str, Any], text: str
) -> None:
    service = ScriptedService(steps(tokenizer, "hi!", FinishReason.STOP))
    async with serve(service) as client:
        (stop,) = tokenizer.encode("!").ids
        assert await text_of(client, stop_token_ids=[stop], **fields) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "user: hi\nassistant:"),
        ({"chat_template_kwargs": {"loudly": True}}, "user: hi\nassistant: LOUD"),
        ({"add_generation_prompt": False}, "user: hi\n"),
        ({"continue_final_message": True}, "user: hi"),
        ({"continue_final_message": True, "add_generation_prompt": False}, "user: hi"),
    ],
)
async def test_a_request_says_how_its_chat_is_rendered(
    serve: Serve, tokenizer: Tokenizer, tmp_path: Folder, fields: dict[str, Any], text: str
) -> None:
    service = ScriptedService([Last((65,), FinishReason.LENGTH)])
    async with serve(service, model=write_folder(tmp_path, template=TEMPLATE)) as client:
        await text_of(client, **fields)
    (ids,) = service.specs[0].draft.text
    assert tokenizer.decode(list(ids)) == text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"chat_template_kwargs": {"quietly": True}}, "chat_template_kwargs.quietly"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {f"s{k}": 1 for k in range(33)}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"loudly": "x" * 65536}}, "chat_template_kwargs"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
        ),
        ({"request_id": "a b"}, "request_id"),
        ({"request_id": "a\n"}, "request_id"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"priority": 1001}, "priority"),
        ({"priority": 0.5}, "priority"),
        ({"skip_special_tokens": 1}, "skip_special_tokens"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"model": "autos"}, "model"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    serve: Serve, fields: dict[str, Any], param: str
) -> None:
    service = ScriptedService()
    async with serve(service) as client:
        response = await client.post(URL, json=chat(**fields))
    assert response.status_code == (404 if param == "model" else 400), response.text
    assert response.json()["error"]["param"] == param and not service.specs


async def test_what_changes_no_answer_is_taken(serve: Serve, tokenizer: Tokenizer) -> None:
    service = ScriptedService(script(tokenizer, "a"))
    nothing = {
        "echo": False,
        "use_beam_search": False,
        "length_penalty": 1.0,
        "bad_words": [],
        "documents": [],
        "spaces_between_special_tokens": True,
        "truncate_prompt_tokens": None,
        "chat_template": None,
        "chat_template_kwargs": {},
        "user": "somebody",
    }
    async with serve(service) as client:
        assert await text_of(client, **nothing) == "a"


async def test_a_clients_name_for_its_request_is_the_answers_id(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """A name and nothing else: the cluster never hears of it."""
    service = ScriptedService(script(tokenizer, "a"))
    async with serve(service) as client:
        whole = (await client.post(URL, json=chat(request_id="mine.1"))).json()
        *chunks, _ = events(await client.post(URL, json=chat(request_id="mine.1", stream=True)))
        other = (await client.post(URL, json=chat())).json()
    assert {whole["id"], *(chunk["id"] for chunk in chunks)} == {"chatcmpl-mine.1"}
    assert other["id"] == "chatcmpl-r2"


async def test_the_priority_reaches_the_cluster(serve: Serve, tokenizer: Tokenizer) -> None:
    service = ScriptedService(script(tokenizer, "a"))
    async with serve(service) as client:
        for fields in ({"priority": 7}, {"priority": -2}, {}):
            await client.post(URL, json=chat(**fields))
    assert [spec.priority for spec in service.specs] == [7, -2, 0]


async def test_the_model_has_all_of_its_names_and_answers_under_the_first(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    service = ScriptedService(script(tokenizer, "a"))
    async with serve(service, other_model_names=("small", "org/small")) as client:
        for name in ("tiny", "small", "org/small", "auto"):
            answer = await client.post(URL, json=chat(model=name))
            assert answer.json()["model"] == "tiny"
        cards = (await client.get("/v1/models")).json()["data"]
        (await client.get("/v1/models/org/small")).raise_for_status()
        assert (await client.get("/v1/models/auto")).status_code == 404
    assert [card["id"] for card in cards] == ["tiny", "small", "org/small"]
    assert {card["max_model_len"] for card in cards} == {4096}


# ---- usage


async def test_usage_counts_the_rows_of_items_by_their_kind(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    kinds = [Modality.IMAGE, Modality.VIDEO, Modality.IMAGE, Modality.AUDIO]
    path = Path.of("r", 0.0, kinds)
    for index, num_rows in enumerate((3, 50, 4, 600)):
        path.laid_out_item(index, num_rows)
    service = ScriptedService(script(tokenizer, "a"), path=path)
    async with serve(service) as client:
        usage = (await client.post(URL, json=chat())).json()["usage"]
    assert usage["prompt_tokens_details"] == {
        "cached_tokens": NUM_CACHED,
        "image_tokens": 7,
        "video_tokens": 50,
        "audio_tokens": 600,
        "time_series_tokens": 0,
    }


@pytest.mark.parametrize("at_end", [True, False])
async def test_usage_so_far_stands_in_every_chunk_where_it_is_asked_for(
    serve: Serve, tokenizer: Tokenizer, at_end: bool
) -> None:
    service = ScriptedService(steps(tokenizer, "zzqx", FinishReason.LENGTH))
    options = {"continuous_usage_stats": True, "include_usage": at_end}
    body = chat(stream=True, stream_options=options)
    async with serve(service) as client:
        *chunks, done = events(await client.post(URL, json=body))
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert done == "[DONE]" and counts == [1, 2, 3, 4, 4][: 4 + at_end]
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {7}


async def test_nothing_is_sent_before_the_first_token(serve: Serve, tokenizer: Tokenizer) -> None:
    """No chunk that only has a role: the first one has the first text."""
    service = ScriptedService(steps(tokenizer, "zz", FinishReason.LENGTH))
    async with serve(service) as client:
        first, *_ = events(await client.post(URL, json=chat(stream=True)))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "z"}


async def test_nothing_is_said_of_the_likelihood_of_rows(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """They are no tokens: the ids at their places only stand for them."""
    spans = ((1, 3), (5, 6))
    service = ScriptedService(script(tokenizer, "a"), row_spans=spans)
    async with serve(service) as client:
        found = (await client.post(URL, json=chat(prompt_logprobs=1))).json()["prompt_logprobs"]
    assert len(found) == len(PROMPT)
    assert [place is None for place in found] == [True, True, True, False, False, True, False]
