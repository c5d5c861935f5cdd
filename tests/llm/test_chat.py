"""`LLM.chat` says what Hugging Face says, whatever the chat holds, and what HTTP says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
from openai import OpenAI

import epd
from epd.errors import BadRequest
from tests.cluster.ready_made import rows_of
from tests.corpus.making import moving, scene
from tests.reference import Reference, Video

GREEDY = epd.SamplingParams(temperature=0, max_tokens=8)
PICTURES = [scene(60, 44, seed) for seed in range(3)]
FRAMES = moving(4, 56, 56)


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def hugging_face(
    reference: Reference, words: str, *items: tuple[str, Any]
) -> tuple[list[int], list[int]]:
    """Prompt ids and new ids of a chat that has the items before its words."""
    chat = user(*({"type": kind} for kind, _ in items), text(words))
    seen = [item for _, item in items]
    return reference.generate(chat, seen, max_tokens=8, repetition_penalty=1.0)


def test_a_batch_is_answered_as_hugging_face_answers_each_in_order(
    llm: epd.LLM, reference: Reference
) -> None:
    """Long and short, with pictures and without: they do not end in the order of the batch."""
    chats, expected = [], []
    for number in range(6):
        pictures = PICTURES[: number % 3]
        words = f"question {number} " * (7 - number)
        parts = [{"type": "image", "image": picture} for picture in pictures]
        chats.append(user(*parts, text(words)))
        expected.append(hugging_face(reference, words, *(("image", one) for one in pictures)))
    found = llm.chat(chats, GREEDY)
    assert [list(one.prompt_token_ids or ()) for one in found] == [ids for ids, _ in expected]
    assert [list(one.outputs[0].token_ids) for one in found] == [new for _, new in expected]
    assert [one.num_prompt_tokens for one in found] == [len(ids) for ids, _ in expected]


def test_frames_are_a_video(llm: epd.LLM, reference: Reference) -> None:
    seen = Video(FRAMES, tuple(range(0, 8, 2)), 2.0, 8)
    facts = {"fps": 2.0, "frames_indices": [0, 2, 4, 6], "total_num_frames": 8}
    _, expected = hugging_face(reference, "what moves?", ("video", seen))
    [found] = llm.chat(
        user({"type": "video", "video": (FRAMES, facts)}, text("what moves?")), GREEDY
    )
    assert list(found.outputs[0].token_ids) == expected


def test_rows_that_were_computed_before_stand_for_their_picture(
    llm: epd.LLM, reference: Reference
) -> None:
    alone = reference.alone(PICTURES[0])
    rows = {
        "image_embeds": rows_of(reference, alone),
        "image_grid_thw": torch.as_tensor(alone.tensors["image_grid_thw"]),
    }
    _, expected = hugging_face(reference, "what is it?", ("image", PICTURES[0]))
    part = {"type": "image_embeds", "image_embeds": rows}
    [found] = llm.chat(user(part, text("what is it?")), GREEDY)
    assert list(found.outputs[0].token_ids) == expected
    other = {**rows, "image_embeds": rows["image_embeds"].flip(0)}
    [turned] = llm.chat(
        user({"type": "image_embeds", "image_embeds": other}, text("what is it?")), GREEDY
    )
    assert list(turned.outputs[0].token_ids) != expected


def test_logprobs_are_the_models_own(llm: epd.LLM, reference: Reference) -> None:
    chat = user({"type": "image", "image": PICTURES[0]}, text("what is it?"))
    params = epd.SamplingParams(temperature=0, max_tokens=4, logprobs=3, prompt_logprobs=1)
    [found] = llm.chat(chat, params)
    [output] = found.outputs
    hf_chat = user({"type": "image"}, text("what is it?"))
    inputs = reference.inputs(hf_chat, [PICTURES[0]])
    with torch.inference_mode():
        logits = reference.model(**inputs).logits[0, -1]
    right = torch.log_softmax(logits, -1).topk(3)
    assert output.logprobs is not None
    first = output.logprobs[0]
    assert list(first) == right.indices.tolist()
    told = [one.logprob for one in first.values()]
    assert np.allclose(told, right.values, atol=1e-4)
    assert [one.rank for one in first.values()] == [1, 2, 3]
    places = zip(output.logprobs, output.token_ids, strict=True)
    total = sum(place[token].logprob for place, token in places)
    assert output.cumulative_logprob == pytest.approx(total)
    assert found.prompt_logprobs is not None and found.prompt_logprobs[0] is None
    assert len(found.prompt_logprobs) == found.num_prompt_tokens


def test_the_same_seed_says_the_same_over_http(llm: epd.LLM) -> None:
    words = [{"role": "user", "content": "tell me"}]
    params = epd.SamplingParams(n=2, temperature=1.2, top_p=0.9, seed=7, max_tokens=12)
    [found] = llm.chat(words, params)
    client = OpenAI(base_url=f"{llm.url}/v1", api_key=llm.api_key, max_retries=0)
    with client:
        answer: Any = client.chat.completions.create(
            model=llm.server.model,
            messages=words,  # type: ignore[arg-type]
            n=2,
            temperature=1.2,
            top_p=0.9,
            seed=7,
            max_tokens=12,
            extra_body={"top_k": 0, "repetition_penalty": 1.0},
        )
    assert [one.text for one in found.outputs] == [c.message.content for c in answer.choices]
    assert found.outputs[0].text != found.outputs[1].text


def test_its_server_answers_to_nobody_else(llm: epd.LLM) -> None:
    body = {"model": llm.server.model, "messages": [{"role": "user", "content": "hi"}]}
    assert httpx.post(f"{llm.url}/v1/chat/completions", json=body).status_code == 401
    command = psutil.Process(llm.server.pid).cmdline()
    assert not any(llm.api_key in argument for argument in command)


def test_without_parameters_the_checkpoints_own_apply(llm: epd.LLM, reference: Reference) -> None:
    """Its penalty for repetitions, here; with parameters there is none that they do not name."""
    chat = user(text("tell me"))
    assert reference.model.generation_config.repetition_penalty != 1
    _, expected = reference.generate(chat, max_tokens=16)
    [found] = llm.chat(chat, temperature=0)
    assert list(found.outputs[0].token_ids) == expected
    _, neutral = reference.generate(chat, max_tokens=16, repetition_penalty=1.0)
    [named] = llm.chat(chat, epd.SamplingParams(temperature=0))
    assert list(named.outputs[0].token_ids) == neutral


def test_a_bad_prompt_is_named_and_the_engine_goes_on(llm: epd.LLM) -> None:
    good = user(text("tell me"))
    with pytest.raises(BadRequest, match="prompt 1: ") as caught:
        llm.chat([good, [{"role": "nobody", "content": "x"}]], GREEDY)
    assert caught.value.param == "messages[0].role"
    too_many = user(*({"type": "image", "image": one} for one in (*PICTURES, *PICTURES)))
    with pytest.raises(BadRequest, match="takes 3 at most"):
        llm.chat(too_many, GREEDY)
    with pytest.raises(BadRequest, match="2 sampling_params for 1 prompts"):
        llm.chat(good, [GREEDY, GREEDY])
    assert llm.chat(good, GREEDY)[0].finished


def test_each_prompt_may_have_parameters_of_its_own(llm: epd.LLM) -> None:
    good = user(text("tell me"))
    each = [epd.SamplingParams(temperature=0, max_tokens=num) for num in (1, 3)]
    found = llm.chat([good, good], each, use_tqdm=False)
    assert [len(one.outputs[0].token_ids) for one in found] == [1, 3]


def test_a_server_handle_answers_over_http_until_its_block_is_left(model: Path) -> None:
    settings = {"language.kv_tokens": 4096}
    with epd.serve(model, topology="1E1PD", dtype="float32", settings=settings) as server:
        assert server.running
        models = httpx.get(f"{server.url}/v1/models").json()
        assert [one["id"] for one in models["data"]] == [server.model] == [model.name]
        assert "epd serve:" in server.log()
    assert not server.running
    assert server.stop() == 0
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/v1/models")
