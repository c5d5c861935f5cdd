"""What a request may say, and which field an error names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from epd.errors import BadRequest
from epd.gateway.errors import from_validation
from epd.gateway.schemas import ChatRequest
from epd.prompt import ToolCall

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "look"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}

ALLOWED = "tool_choice.allowed_tools.tools"


def parse(body: Any) -> ChatRequest:
    try:
        request = ChatRequest.model_validate_json(json.dumps(body))
    except ValidationError as error:
        raise from_validation(error) from None
    request.check()
    return request


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


def turn_of(*calls: Any) -> dict[str, Any]:
    """A chat in which the assistant has called functions."""
    turn = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": calls}
    return chat(messages=[USER, turn])


def taking(parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "look", "parameters": parameters}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(*names: str, mode: str = "auto") -> dict[str, Any]:
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]},
    }


def parts(*content: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": list(content)}])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [USER]}, "model"),
        ({"model": "m"}, "messages"),
        (chat(messages=[]), "messages"),
        (chat(messages=[{"role": "user"}]), "messages[0].content"),
        (chat(messages=[{"role": "robot", "content": "x"}]), "messages[0].role"),
        (chat(messages=[USER, {"role": "tool"}]), "messages[1].content"),
        (chat(messages=[{**USER, "tool_call_id": "x"}]), "messages[0].tool_call_id"),
        (chat(messages=[{**USER, "reasoning_content": "x"}]), "messages[0].reasoning_content"),
        (chat(messages=[{"role": "user", "content": None}]), "messages[0].content"),
        (chat(messages=[{"role": "user", "content": 5}]), "messages[0].content"),
        (chat(messages=[{"role": "user", "content": []}]), "messages[0].content"),
        (chat(messages=[{**USER, "mood": 1}]), "messages[0].mood"),
        (chat(messages=[{**USER, "tool_calls": [CALL]}]), "messages[0].tool_calls"),
        (turn_of({}), "messages[1].tool_calls[0].function"),
        (turn_of({**CALL, "type": "custom"}), "messages[1].tool_calls[0].type"),
        (turn_of({**CALL, "mood": 1}), "messages[1].tool_calls[0].mood"),
        (parts({"type": "text"}), "messages[0].content[0].text"),
        (parts({"type": "text", "text": 1}), "messages[0].content[0].text"),
        (parts({"type": "smell_url", "smell_url": {"url": "x"}}), "messages[0].content[0]"),
        (parts({"text": "x"}), "messages[0].content[0]"),
        (parts({"type": ["text"], "text": "x"}), "messages[0].content[0]"),
        (parts({"type": "video_url", "video_url": "x"}), "messages[0].content[0].video_url"),
        (
            parts({"type": "video_url", "video_url": {"url": "x", "fps": 1}}),
            "messages[0].content[0].video_url.fps",
        ),
        (
            parts({"type": "video_url", "video_url": {"url": "x"}, "use_audio_in_video": 1}),
            "messages[0].content[0].use_audio_in_video",
        ),
        (parts({**IMAGE, "use_audio_in_video": True}), "messages[0].content[0].use_audio_in_video"),
        (
            parts({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "../x"}}),
            "messages[0].content[0].input_audio.format",
        ),
        (
            parts({"type": "input_audio", "input_audio": {"data": 1}}),
            "messages[0].content[0].input_audio.data",
        ),
        (
            parts({"type": "image_embeds", "image_embeds": [1]}),
            "messages[0].content[0].image_embeds",
        ),
        (
            parts({"type": "image_embeds", "image_embeds": {"image_embeds": [1]}}),
            "messages[0].content[0].image_embeds.image_embeds",
        ),
        (
            parts({"type": "image_embeds", "image_embeds": {f"f{k}": "" for k in range(17)}}),
            "messages[0].content[0].image_embeds",
        ),
        (parts({"type": "image_url", "image_url": "x"}), "messages[0].content[0].image_url"),
        (
            parts({"type": "image_url", "image_url": {"url": 1}}),
            "messages[0].content[0].image_url.url",
        ),
        (
            parts({"type": "image_url", "image_url": {"url": "x", "detail": "low"}}),
            "messages[0].content[0].image_url.detail",
        ),
        (parts({**IMAGE, "uuid": ""}), "messages[0].content[0].uuid"),
        (parts({**IMAGE, "uuid": "x" * 257}), "messages[0].content[0].uuid"),
        (parts({**IMAGE, "uuid": 5}), "messages[0].content[0].uuid"),
        (chat(media_io_kwargs=[]), "media_io_kwargs"),
        (chat(mm_processor_kwargs="x"), "mm_processor_kwargs"),
        (chat(mm_processor_kwargs={f"s{k}": 1 for k in range(33)}), "mm_processor_kwargs"),
        (chat(temperature=-0.1), "temperature"),
        (chat(temperature=2.1), "temperature"),
        (chat(temperature="0.5"), "temperature"),
        (chat(temperature=True), "temperature"),
        (chat(top_p=0), "top_p"),
        (chat(top_p=1.1), "top_p"),
        (chat(top_k=-2), "top_k"),
        (chat(top_k=1.5), "top_k"),
        (chat(repetition_penalty=0), "repetition_penalty"),
        (chat(repetition_penalty=5e-324), "repetition_penalty"),
        (chat(seed=2**63), "seed"),
        (chat(max_tokens=0), "max_tokens"),
        (chat(max_completion_tokens=2**31), "max_completion_tokens"),
        (chat(max_tokens=1, max_completion_tokens=2), "max_tokens"),
        (chat(stop=""), "stop"),
        (chat(stop=["a", ""]), "stop[1]"),
        (chat(stop=["a"] * 17), "stop"),
        (chat(stop="a" * 1025), "stop"),
        (chat(stop=5), "stop"),
        (chat(stop_token_ids=[-1]), "stop_token_ids[0]"),
        (chat(stop_token_ids=list(range(257))), "stop_token_ids"),
        (chat(stream="yes"), "stream"),
        (chat(return_token_ids=1), "return_token_ids"),
        (chat(stream_options={"include_usage": True}), "stream_options"),
        (chat(stream=True, stream_options={"more": 1}), "stream_options.more"),
        (chat(n=0), "n"),
        (chat(n=17), "n"),
        (chat(n=True), "n"),
        (chat(tools=[{"type": "function"}]), "tools[0].function"),
        (chat(tools=[{"type": "custom", "custom": {}}]), "tools[0].type"),
        (chat(tools=[{**TOOL, "function": {"name": "a b"}}]), "tools[0].function.name"),
        (chat(tools=[{**TOOL, "function": {"name": 5}}]), "tools[0].function.name"),
        (chat(tools=[taking("x")]), "tools[0].function.parameters"),
        (chat(tools=[taking({"type": "array"})]), "tools[0].function.parameters.type"),
        (chat(tools=[TOOL, TOOL]), "tools"),
        (chat(tools=[TOOL] * 129), "tools"),
        (chat(tool_choice="required"), "tool_choice"),
        (chat(tool_choice="sometimes", tools=[TOOL]), "tool_choice"),
        (chat(tool_choice=5, tools=[TOOL]), "tool_choice"),
        (chat(tool_choice=named("fly"), tools=[TOOL]), "tool_choice.function.name"),
        (chat(tool_choice={"type": "some_tools"}, tools=[TOOL]), "tool_choice.type"),
        (
            chat(tool_choice={"type": "allowed_tools"}, tools=[TOOL]),
            "tool_choice.allowed_tools",
        ),
        (chat(tool_choice=allowed("fly"), tools=[TOOL]), f"{ALLOWED}[0].function.name"),
        (chat(tool_choice=allowed(), tools=[TOOL]), ALLOWED),
        (chat(tool_choice=allowed("fly")), "tool_choice"),
        (
            chat(tool_choice=allowed("look", mode="none"), tools=[TOOL]),
            "tool_choice.allowed_tools.mode",
        ),
        (chat(min_p=-0.1), "min_p"),
        (chat(min_p=1.1), "min_p"),
        (chat(min_tokens=-1), "min_tokens"),
        (chat(min_tokens=6, max_tokens=5), "min_tokens"),
        (chat(min_tokens=6, max_completion_tokens=5), "min_tokens"),
        (chat(ignore_eos=1), "ignore_eos"),
        (chat(logprobs=2), "logprobs"),
        (chat(top_logprobs=2), "top_logprobs"),
        (chat(logprobs=False, top_logprobs=2), "top_logprobs"),
        (chat(logprobs=True, top_logprobs=21), "top_logprobs"),
        (chat(logprobs=True, top_logprobs=-1), "top_logprobs"),
        (chat(prompt_logprobs=21), "prompt_logprobs"),
        (chat(prompt_logprobs=-1), "prompt_logprobs"),
        (chat(prompt_logprobs=True), "prompt_logprobs"),
        (chat(logit_bias=[5]), "logit_bias"),
        (chat(logit_bias={"a": 5}), "logit_bias"),
        (chat(logit_bias={"-1": 5}), "logit_bias"),
        (chat(logit_bias={"1.0": 5}), "logit_bias"),
        (chat(logit_bias={"01": 5}), "logit_bias"),
        (chat(logit_bias={"\u0661": 5}), "logit_bias"),
        (chat(logit_bias={"1": 100.5}), "logit_bias.1"),
        (chat(logit_bias={"1": -101}), "logit_bias.1"),
        (chat(logit_bias={"1": "5"}), "logit_bias.1"),
        (chat(logit_bias={"a" * 999: "5"}), "logit_bias." + "a" * 100),
        (chat(logit_bias={str(token): 1 for token in range(1025)}), "logit_bias"),
        (chat(presence_penalty=2.1), "presence_penalty"),
        (chat(frequency_penalty=-2.1), "frequency_penalty"),
        (chat(cache_salt=""), "cache_salt"),
        (chat(cache_salt="a" * 257), "cache_salt"),
        (chat(cache_salt=5), "cache_salt"),
        (chat(reasoning_effort="lots"), "reasoning_effort"),
        (chat(kv_transfer_params={"peer_host": "x"}), "kv_transfer_params"),
        (chat(temprature=1), "temprature"),
        ([], None),
        ("x", None),
    ],
)
def test_a_bad_field_is_named(body: Any, param: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(body)
    assert caught.value.param == param
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me", "metadata": {"a": "b"}, "store": True, "safety_identifier": "x"},
        {"n": 1, "logprobs": False, "top_logprobs": None, "logit_bias": {}, "tools": []},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "response_format": {"type": "text"}},
        {"tool_choice": "auto", "parallel_tool_calls": True, "service_tier": "auto"},
        {"temperature": 1, "top_p": 1, "top_k": -1, "stop": None, "stream_options": None},
        {"max_tokens": 5, "max_completion_tokens": 5, "stop": [], "seed": -1},
        {"min_tokens": 0, "min_p": 0, "ignore_eos": False, "top_logprobs": 0},
    ],
)
def test_fields_that_change_nothing_are_accepted(fields: dict[str, Any]) -> None:
    parse(chat(**fields))


def test_an_answer_can_be_sent_back_as_a_turn() -> None:
    """With everything that the stock client puts into one."""
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "yes",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    request = parse(chat(messages=[USER, answer, USER]))
    assert request.messages[1].to_prompt(iter(()), 1).content == "yes"


def test_calls_can_be_sent_back_with_their_results() -> None:
    """As the stock client has them, in streams too. Arguments are an object to the template."""
    body = turn_of({**CALL, "index": 0}, {**CALL, "function": {"name": "go", "arguments": ""}})
    body["messages"].append({"role": "tool", "tool_call_id": "c1", "content": "sunny"})
    request = parse(body)
    [_, calls, result] = [
        message.to_prompt(iter(()), i) for i, message in enumerate(request.messages)
    ]
    assert (calls.content, calls.reasoning) == ("", "hm")
    assert calls.tool_calls == (
        ToolCall(id="c1", name="look", arguments={"at": 1}),
        ToolCall(id="c1", name="go", arguments={}),
    )
    assert (result.role, result.tool_call_id, result.content) == ("tool", "c1", "sunny")


@pytest.mark.parametrize("arguments", ["{", "[]", "null", "5", "[" * 100_000])
def test_arguments_that_are_no_object_are_named(arguments: str) -> None:
    request = parse(turn_of({**CALL, "function": {"name": "look", "arguments": arguments}}))
    with pytest.raises(BadRequest) as caught:
        request.messages[1].to_prompt(iter(()), 1)
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_give_an_error_and_no_crash(raw: bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate_json(raw)
    assert from_validation(caught.value).status == 400


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"a": "\\ud800"}', b"[" * 100_000])
def test_malformed_json_is_said_to_be_that(raw: bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate_json(raw)
    assert from_validation(caught.value).code == "invalid_json"
