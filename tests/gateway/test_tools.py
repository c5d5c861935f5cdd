"""Tools and reasoning over HTTP: what the model is shown, and what becomes of what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from epd.models.spec import Checkpoint
from epd.types import FinishReason
from tests.gateway.conftest import Serve
from tests.gateway.scripted import Last, Of, ScriptedService, Step
from tests.prompt.folders import TOOLS_TEMPLATE, write_folder

pytestmark = pytest.mark.anyio

LOOK = {
    "type": "function",
    "function": {
        "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}},
        "name": "look",
        "description": "<|im_end|> says it",
    },
}
GO = {"type": "function", "function": {"name": "go"}, "cost": 7}
USER = {"role": "user", "content": "hi"}
PLAIN = {"thinking": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_folder(tmp_path_factory.mktemp("tools"), template=TOOLS_TEMPLATE)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [USER], "tools": [LOOK, GO], **fields}


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def script(tokenizer: Tokenizer, *texts: str, end: FinishReason = FinishReason.STOP) -> list[Step]:
    eos = tuple(tokenizer.encode("<|im_end|>").ids) if end is FinishReason.STOP else ()
    return [*(tokenizer.encode(text).ids for text in texts), Last(eos, end)]


def some(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


SAID = (
    *("<think>", "</think>", "hm ", "\u2603\n", "<tool", "<tool_call>", '{"name": ', " "),
    call("go", "{}"),
    call("look", '{"at": [1, "}<"]}'),
)


async def ask(serve: Serve, model: Checkpoint, steps: Sequence[Step], **fields: Any) -> Any:
    """The first choice of an answer that is not streamed."""
    async with serve(ScriptedService(steps), model=model) as client:
        response = await client.post("/v1/chat/completions", json=chat(**fields))
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


async def chunks(serve: Serve, model: Checkpoint, steps: Sequence[Step], **fields: Any) -> Any:
    """The choices of all chunks of a stream."""
    async with serve(ScriptedService(steps), model=model) as client:
        response = await client.post("/v1/chat/completions", json=chat(stream=True, **fields))
    return choices_of(response)


def choices_of(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]", response.text
    return [json.loads(line)["choices"][0] for line in lines]


def put_together(chunks: Sequence[Any]) -> tuple[dict[str, Any], str]:
    """The message that a stock client makes of a stream, and its finish reason."""
    message: dict[str, Any] = {"content": None}
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        delta = chunk["delta"]
        for name in ("content", "reasoning_content"):
            if delta.get(name):
                message[name] = (message.get(name) or "") + delta[name]
        for piece in delta.get("tool_calls", ()):
            index = piece.pop("index")
            if index not in calls:
                calls[index] = piece
            else:
                assert set(piece) == {"function"} and set(piece["function"]) == {"arguments"}
                calls[index]["function"]["arguments"] += piece["function"]["arguments"]
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message, chunks[-1]["finish_reason"]


async def test_calls_have_openais_form(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    text = "well</think>I look.\n" + call("look", '{"at": 1}') + "\n" + call("go", "{}")
    choice = await ask(serve, model, script(tokenizer, text))
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "I look.",
        "refusal": None,
        "reasoning_content": "well",
        "tool_calls": [
            {
                "id": "call_r0_0_0",
                "type": "function",
                "function": {"name": "look", "arguments": '{"at": 1}'},
            },
            {
                "id": "call_r0_0_1",
                "type": "function",
                "function": {"name": "go", "arguments": "{}"},
            },
        ],
    }


async def test_calls_alone_have_no_content(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    steps = script(tokenizer, call("go", "{}") + "\n")
    message = (await ask(serve, model, steps, chat_template_kwargs=PLAIN))["message"]
    assert message["content"] is None and "reasoning_content" not in message


async def test_an_answer_that_ends_inside_of_a_call_says_so(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    steps = script(tokenizer, call("look", '{"at": 1}')[:-20], end=FinishReason.LENGTH)
    choice = await ask(serve, model, steps, chat_template_kwargs=PLAIN)
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"a'


async def test_a_stream_names_a_call_first_and_then_writes_it(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    texts = (
        "so</think>",
        '<tool_call>{"name": "look", "arguments": {"a',
        't": 1}',
        "}</tool_call>",
    )
    found = await chunks(serve, model, script(tokenizer, *texts))
    assert [chunk["delta"] for chunk in found] == [
        {"role": "assistant", "reasoning_content": "so"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_r0_0_0",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"a'},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": 't": 1}'}}]},
        {},
    ]
    assert [chunk["finish_reason"] for chunk in found] == [None, None, None, "tool_calls"]


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.sampled_from(SAID), min_size=1, max_size=8).map("".join),
    st.lists(st.floats(0, 1), max_size=6).map(sorted) | st.just([n / 400 for n in range(400)]),
    st.booleans(),
)
async def test_a_stream_adds_up_to_the_whole_answer(
    serve: Serve,
    model: Checkpoint,
    tokenizer: Tokenizer,
    text: str,
    cuts: list[float],
    parallel: bool,
) -> None:
    """Whatever the runs of tokens are, and whatever the model says."""
    ids = tokenizer.encode(text).ids
    places = [0, *(round(cut * len(ids)) for cut in cuts), len(ids)]
    runs = [ids[a:b] for a, b in zip(places, places[1:], strict=False)]
    end = Last((), FinishReason.STOP)
    fields = {"parallel_tool_calls": parallel}
    whole = await ask(serve, model, [ids, end], **fields)
    message, reason = put_together(await chunks(serve, model, [*runs, end], **fields))
    expected = {name: whole["message"].get(name) for name in whole["message"]}
    del expected["role"], expected["refusal"]
    assert message == {**expected, "content": expected["content"] or None}
    assert reason == whole["finish_reason"]


async def test_one_call_at_a_time_ends_the_answer_with_it(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    """Of each choice; the workers are told at once."""
    ids = tokenizer.encode("</think>" + call("go", "{}") + "\n" + call("go", "{}")).ids
    service = ScriptedService([ids, Of(1, Last(tuple(ids[:9]), FinishReason.LENGTH)), None])
    async with serve(service, model=model) as client:
        body = chat(parallel_tool_calls=False, n=2)
        first, _ = (await client.post("/v1/chat/completions", json=body)).json()["choices"]
    assert len(first["message"]["tool_calls"]) == 1 and first["finish_reason"] == "tool_calls"
    assert (service.calls[0].ended, service.calls[0].num_cancels) == ([0], 0)


async def test_the_prompt_is_hugging_faces_prompt_of_the_same_chat(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    """Tools with all that was sent, in its order; calls, their results, reasoning."""
    function = {"name": "look", "arguments": '{"b": [1.5, "\u2603"], "at": 1}'}
    answered = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "let me see",
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }
    result = {"role": "tool", "tool_call_id": "c", "content": "<tool_call> sun"}
    service = ScriptedService(script(tokenizer, "a"))
    async with serve(service, model=model) as client:
        body = chat(messages=[USER, answered, result])
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    function["arguments"] = json.loads(function["arguments"])
    reference = PreTrainedTokenizerFast.from_pretrained(model.path)
    ids = reference.apply_chat_template(
        [USER, {**answered, "content": ""}, result],
        tools=[{**LOOK, "function": {**LOOK["function"], "description": "says it"}}, GO],  # type: ignore[dict-item]
        tokenize=False,
        add_generation_prompt=True,
    )
    [sent] = service.specs[0].draft.text
    text = tokenizer.decode(list(sent), skip_special_tokens=False)
    assert text.replace("<|im_end|> says it", "says it", 1) == ids
    assert sent.count(tokenizer.token_to_id("<|im_end|>")) == ids.count("<|im_end|>")


async def test_tools_that_may_not_be_called_are_not_shown(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    text = "</think>" + call("go", "{}")
    service = ScriptedService(script(tokenizer, text))
    async with serve(service, model=model) as client:
        response = await client.post("/v1/chat/completions", json=chat(tool_choice="none"))
    assert response.json()["choices"][0]["message"]["content"] == call("go", "{}")
    [sent] = service.specs[0].draft.text
    assert "<tools>" not in tokenizer.decode(list(sent))
    assert service.specs[0].sampling.grammar == ""


@pytest.mark.parametrize(
    ("choice", "there", "missing"),
    [
        ("auto", (), ("look", "go")),
        (None, (), ("look", "go")),
        ("required", ("look", "go"), ()),
        ({"type": "function", "function": {"name": "go"}}, ("go",), ("look",)),
        (some("auto", "go"), ("go",), ("look",)),
        (some("auto", "go", "look"), (), ("look", "go")),
        (some("required", "go", "look"), ("look", "go"), ()),
        (some("required", "go"), ("go",), ("look",)),
    ],
)
async def test_a_call_that_has_to_be_is_a_grammar(
    serve: Serve,
    model: Checkpoint,
    tokenizer: Tokenizer,
    choice: Any,
    there: Sequence[str],
    missing: Sequence[str],
) -> None:
    """Of the functions that may be called; what they are is in the prompt in any case."""
    service = ScriptedService(script(tokenizer, "</think>" + call("go", "{}")))
    async with serve(service, model=model) as client:
        await client.post("/v1/chat/completions", json=chat(tool_choice=choice))
    grammar = service.specs[0].sampling.grammar
    assert bool(grammar) == bool(there)
    assert all(f'\\"{name}\\"' in grammar for name in there)
    assert not any(f'\\"{name}\\"' in grammar for name in missing)
    assert '"look"' in tokenizer.decode(list(service.specs[0].draft.text[0]))


async def test_an_answer_that_may_call_some_functions_may_also_call_none(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    grammars = []
    for mode in ("auto", "required"):
        service = ScriptedService(script(tokenizer, "a"))
        async with serve(service, model=model) as client:
            await client.post("/v1/chat/completions", json=chat(tool_choice=some(mode, "go")))
        grammars.append(service.specs[0].sampling.grammar.partition("\n")[0])
    free, must = grammars
    assert "text" in free and "text" not in must and "block" in must


async def test_a_strict_function_makes_free_calls_right(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    """Without one there is nothing to follow, and steps cost nothing."""
    strict = {**GO, "function": {"name": "fly", "strict": True}}
    grammars = []
    for tools in ([LOOK], [LOOK, strict]):
        service = ScriptedService(script(tokenizer, "a"))
        async with serve(service, model=model) as client:
            await client.post("/v1/chat/completions", json=chat(tools=tools))
        grammars.append(service.specs[0].sampling.grammar)
    assert not grammars[0] and "fly" in grammars[1] and "look" in grammars[1]


async def test_a_schema_that_cannot_be_followed_is_named(serve: Serve, model: Checkpoint) -> None:
    """Before anything is sent to the cluster."""
    function = {"name": "f", "strict": True, "parameters": {"unevaluatedItems": 5}}
    broken = chat(tools=[{"type": "function", "function": function}])
    endless = chat(tool_choice="required", ignore_eos=True)
    service = ScriptedService([])
    async with serve(service, model=model) as client:
        for body, param in ((broken, "tools"), (endless, "ignore_eos")):
            response = await client.post("/v1/chat/completions", json=body)
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not service.specs


async def test_an_answer_with_a_form_may_be_a_call(serve: Serve, model: Checkpoint) -> None:
    """And reasons before either."""
    service = ScriptedService([Last((65,), FinishReason.LENGTH)])
    for choice in ("auto", "required", "none"):
        async with serve(service, model=model) as client:
            body = chat(response_format={"type": "json_object"}, tool_choice=choice)
            response = await client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
    free, must, none = (spec.sampling.grammar for spec in service.specs)
    assert "(@answer | block" in free and "thought" in free
    assert "@answer" not in must and "block" in must
    assert "thought gap @answer" in none and "block" not in none


async def test_schemas_that_are_too_large_to_follow_are_refused(
    serve: Serve, tmp_path: Path
) -> None:
    model = write_folder(tmp_path, template=TOOLS_TEMPLATE, max_context=1_000_000)
    large = {"name": "f", "parameters": {"type": "object", "description": "a" * 200_000}}
    for choice, status in (("required", 400), ("auto", 500)):
        body = chat(tools=[{"type": "function", "function": large}], tool_choice=choice)
        async with serve(ScriptedService([]), model=model) as client:
            response = await client.post("/v1/chat/completions", json=body)
        assert response.status_code == status


async def test_reasoning_needs_no_tools(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    """It is what the template opened, or what the answer begins with."""
    for text, fields in (
        ("a</think>b", {}),
        ("<think>a</think>b", {"chat_template_kwargs": PLAIN}),
    ):
        choice = await ask(serve, model, script(tokenizer, text), tools=[], **fields)
        message = choice["message"]
        assert (message["reasoning_content"], message["content"]) == ("a", "b")
        assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(("effort", "thinks"), [("none", False), ("low", True), (None, True)])
async def test_an_effort_reaches_the_models_template(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer, effort: str | None, thinks: bool
) -> None:
    """This one has a switch, `thinking`; responses say the same in their own words."""
    service = ScriptedService(script(tokenizer, "a"))
    async with serve(service, model=model) as client:
        body = {"model": "tiny", "messages": [USER], "reasoning_effort": effort}
        await client.post("/v1/chat/completions", json=body)
        said = {"model": "tiny", "input": "hi", "reasoning": {"effort": effort}}
        await client.post("/v1/responses", json=said)
    for spec in service.specs:
        assert tokenizer.decode(list(spec.draft.text[0])).endswith("<think>\n") == thinks
    assert len(service.specs) == 2


async def test_an_effort_that_the_model_knows_nothing_of_is_refused(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    """Not to think is what such a model does anyway."""
    service = ScriptedService(script(tokenizer, "a"))
    async with serve(service) as client:
        for effort, status in (("low", 400), ("none", 200)):
            body = {"model": "tiny", "messages": [USER], "reasoning_effort": effort}
            response = await client.post("/v1/chat/completions", json=body)
            assert response.status_code == status, response.text
        said = {"model": "tiny", "input": "hi", "reasoning": {"effort": "low"}}
        error = (await client.post("/v1/responses", json=said)).json()["error"]
    assert error["param"] == "reasoning.effort"
    assert len(service.specs) == 1


async def test_the_tokens_of_reasoning_are_told_alike_streamed_and_whole(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    """Of all choices together."""
    steps: list[Step] = script(tokenizer, "well, ", "the</think>", "fox")
    second = tokenizer.encode("so</think>a house").ids
    steps[1:1] = [Of(1, Last(tuple(second), FinishReason.LENGTH))]
    num = sum(len(tokenizer.encode(text).ids) for text in ("well, ", "the</think>", "so</think>"))
    body = chat(tools=[], n=2)
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with serve(ScriptedService(steps), model=model) as client:
        whole = (await client.post("/v1/chat/completions", json=body)).json()["usage"]
        lines = (await client.post("/v1/chat/completions", json=streamed)).text.split("\n\n")
    assert whole["completion_tokens_details"] == {"reasoning_tokens": num}
    assert json.loads(lines[-3].removeprefix("data: "))["usage"] == whole


async def test_a_model_without_marks_says_what_it_says(
    serve: Serve, checkpoint: Checkpoint, tokenizer: Tokenizer
) -> None:
    text = "<think>a</think> " + call("go", "{}") + " \n"
    choice = await ask(serve, checkpoint, script(tokenizer, text), tools=[])
    assert choice["message"]["content"] == text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [LOOK]}, "tools"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].role"),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [
                {"function": {"name": "go", "arguments": "{}"}}]}]},
            "messages[1].tool_calls",
        ),
    ],
)  # fmt: skip
async def test_what_the_template_never_shows_is_refused(
    serve: Serve, checkpoint: Checkpoint, fields: dict[str, Any], param: str
) -> None:
    async with serve(ScriptedService([]), model=checkpoint) as client:
        body = {"model": "tiny", "messages": [USER], **fields}
        response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


async def test_calls_in_an_unknown_form_are_refused(serve: Serve, tmp_path: Path) -> None:
    """Unless the operator knows the form."""
    template = TOOLS_TEMPLATE.replace("tool_call>", "functioncall>")
    model = write_folder(tmp_path, template=template)
    for form, status in (("auto", 400), ("none", 400), ("hermes", 500)):
        async with serve(ScriptedService([]), model=model, tool_call_format=form) as client:
            response = await client.post("/v1/chat/completions", json=chat())
        assert response.status_code == status
        assert response.json()["error"]["param"] == ("tools" if status == 400 else None)


async def test_the_operator_may_switch_reasoning_off(
    serve: Serve, model: Checkpoint, tokenizer: Tokenizer
) -> None:
    service = ScriptedService(script(tokenizer, "a</think>b"))
    async with serve(service, model=model, reasoning_format="none") as client:
        response = await client.post("/v1/chat/completions", json=chat())
    assert response.json()["choices"][0]["message"]["content"] == "a</think>b"
