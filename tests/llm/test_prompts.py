"""Prompts, parameters and outputs in the forms that users of offline engines know."""

from __future__ import annotations

from typing import Any

import pytest

from epd.errors import BadRequest
from epd.gateway.schemas import ChatRequest
from epd.llm.chats import as_chats, read_chat
from epd.llm.outputs import Logprob, read_output
from epd.llm.params import SamplingParams
from epd.llm.prompts import read_prompts
from tests.corpus.making import moving, scene

PICTURE = scene(20, 20)


# ---- prompts


@pytest.mark.parametrize(
    ("given", "contents"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ({"prompt": "a"}, ["a"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ({"prompt_token_ids": [1]}, [[1]]),
        (["a", {"prompt": "b"}, {"prompt_token_ids": [3]}], ["a", "b", [3]]),
        ([], []),
    ],
)
def test_one_prompt_or_many_text_or_ids(given: Any, contents: list[Any]) -> None:
    assert [prompt.content for prompt in read_prompts(given)] == contents


def test_a_prompt_takes_its_items_and_wishes_along() -> None:
    [prompt] = read_prompts(
        {
            "prompt": "x",
            "multi_modal_data": {"video": (moving(2), {"fps": 2.0})},
            "mm_processor_kwargs": {"max_pixels": 1},
            "media_io_kwargs": {"video": {"num_frames": 2}},
        }
    )
    body = prompt.body()
    assert body["prompt"] == "x"
    assert [item["type"] for item in body["items"]] == ["video_url"]
    assert body["mm_processor_kwargs"] == {"max_pixels": 1}
    assert body["media_io_kwargs"] == {"video": {"num_frames": 2, "fps": 2.0}}
    assert read_prompts("x")[0].body() == {"prompt": "x"}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (3, "prompts"),
        ([3.5], "prompts[0]"),
        ({"text": "a"}, "prompts[0].text"),
        (["a", {"multi_modal_data": {}}], "prompts[1].prompt"),
    ],
)
def test_what_is_no_prompt_is_refused_by_its_place(given: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_prompts(given)
    assert caught.value.param == param


# ---- chats


def chat(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def test_one_chat_or_many() -> None:
    one = [{"role": "user", "content": "hi"}]
    assert as_chats(one) == [one]
    assert as_chats([one, one]) == [one, one]
    with pytest.raises(BadRequest, match="must be a list"):
        as_chats("hi")


@pytest.mark.parametrize("kind", ["image", "image_pil"])
def test_what_is_in_memory_becomes_a_part_that_a_request_can_carry(kind: str) -> None:
    text = {"type": "text", "text": "what is it?"}
    messages, _ = read_chat(chat(text, {"type": kind, kind: PICTURE, "uuid": "cat"}))
    first, second = messages[0]["content"]
    assert first == text
    assert second["image_url"]["url"].startswith("data:image/png;base64,")
    assert second["uuid"] == "cat"
    assert ChatRequest.model_validate({"model": "m", "messages": messages})


def test_what_can_be_carried_stays_as_it_is() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://a.org/cat.png"}},
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"type": "image_embeds", "image_embeds": {"image_embeds": "AAAA"}},
        {"type": "image_embeds", "uuid": "cat"},
    ]
    messages, _ = read_chat(chat(*parts))
    assert messages[0]["content"] == parts


def test_a_part_is_one_item() -> None:
    with pytest.raises(BadRequest, match=r"content\[0\].image has 2 items"):
        read_chat(chat({"type": "image", "image": [PICTURE, PICTURE]}))


def test_frames_of_a_chat_say_what_they_are_of() -> None:
    _, frames = read_chat(chat({"type": "video", "video": (moving(2), {"fps": 4.0})}))
    assert frames == {"fps": 4.0}


# ---- parameters


def test_parameters_that_say_nothing_are_neutral_and_short() -> None:
    """The checkpoint's defaults do not shine through, as they do where there are none."""
    assert SamplingParams().body() == {
        "max_tokens": 16,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "min_tokens": 0,
    }


def test_all_that_can_be_said_is_what_a_request_takes() -> None:
    params = SamplingParams(
        n=2,
        temperature=0.5,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        logit_bias={3: 1.0},
        seed=1,
        stop=("a", "b"),
        stop_token_ids=(7,),
        ignore_eos=True,
        max_tokens=None,
        prompt_logprobs=2,
        logprobs=3,
        skip_special_tokens=False,
        include_stop_str_in_output=True,
    )
    body = params.body()
    assert "logprobs" not in body and "max_tokens" not in body
    request = ChatRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "x"}], **body}
    )
    request.check()
    assert request.logit_bias == {"3": 1.0}
    assert request.stops == ("a", "b")


# ---- outputs


def choice(**more: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": "stop", "token_ids": [5, 6], "logprobs": None, **more}


LIKELY: dict[str, Any] = {"logprob": -0.5, "rank": 1, "decoded_token": "c"}
USAGE = {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}


def test_an_answer_of_either_api_is_one_form() -> None:
    told = {"prompt_token_ids": [1, 2, 3], "prompt_logprobs": [None, None, {"3": LIKELY}]}
    text, message = choice(text="hi", **told), choice(message={"content": "hi"})
    for said in ({"choices": [text]}, {"choices": [message], **told}):
        found = read_output({"id": "r", "usage": USAGE, **said}, "p")
        assert found.prompt_token_ids == (1, 2, 3)
        assert found.prompt_logprobs == [None, None, {3: Logprob(**LIKELY)}]
        assert (found.request_id, found.prompt) == ("r", "p")
        assert (found.num_prompt_tokens, found.num_cached_tokens) == (3, 2)
        [output] = found.outputs
        assert (output.text, output.token_ids, output.finish_reason) == ("hi", (5, 6), "stop")
        assert output.logprobs is None and output.cumulative_logprob is None


def test_what_a_model_thinks_and_calls_is_not_lost() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"content": None, "reasoning_content": "hm", "tool_calls": [call]}
    body = {"id": "r", "usage": USAGE, "choices": [choice(message=message)]}
    [output] = read_output(body, None).outputs
    assert (output.text, output.reasoning, output.tool_calls) == ("", "hm", (call,))


def test_logprobs_are_by_token_id_the_tokens_own_first() -> None:
    def token(token_id: int, logprob: float) -> dict[str, Any]:
        return {"token_id": token_id, "token": f"t{token_id}", "logprob": logprob, "bytes": []}

    likely = [token(9, -0.5), token(5, -1.0)]
    content = [
        {**token(5, -1.0), "top_logprobs": likely},
        {**token(6, -3.0), "top_logprobs": likely},
    ]
    said = choice(text="", logprobs={"content": content})
    [output] = read_output({"id": "r", "usage": USAGE, "choices": [said]}, None).outputs
    assert output.cumulative_logprob == -4.0
    assert output.logprobs is not None
    assert list(output.logprobs[0]) == [5, 9]
    assert output.logprobs[0][5] == Logprob(logprob=-1.0, rank=2, decoded_token="t5")
    assert output.logprobs[1][6].rank is None
