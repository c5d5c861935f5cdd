"""/tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from epd.models.spec import Checkpoint
from tests.gateway.asking import chat, inline
from tests.gateway.conftest import Serve
from tests.gateway.scripted import ScriptedService

pytestmark = pytest.mark.anyio

TEXT = "<|im_start|>the small house \U0001f600"


async def test_a_text_has_the_tokenizers_ids_and_they_say_it_again(
    serve: Serve, tokenizer: Tokenizer
) -> None:
    ids = tokenizer.encode(TEXT).ids
    async with serve(ScriptedService()) as client:
        asked = {"model": "tiny", "prompt": TEXT, "return_token_strs": True}
        found = (await client.post("/tokenize", json=asked)).json()
        back = (await client.post("/detokenize", json={"tokens": found["tokens"]})).json()
    assert found == {
        "count": len(ids),
        "max_model_len": 4096,
        "tokens": ids,
        "token_strs": [tokenizer.id_to_token(one) for one in ids],
    }
    assert back == {"prompt": TEXT}


async def test_a_chat_has_the_ids_that_a_completion_would_send(
    serve: Serve, every: Checkpoint
) -> None:
    """Its item counts as the one token of its placeholder."""
    tokenizer = Tokenizer.from_file(str(every.path / "tokenizer.json"))
    body = chat({"type": "text", "text": "what?"}, inline("image", b"p"))
    async with serve(ScriptedService(), model=every) as client:
        found = (await client.post("/tokenize", json=body)).json()
    text = "<|im_start|>user\nwhat?<|image_pad|><|im_end|>\n<|im_start|>assistant"
    assert found["tokens"] == tokenizer.encode(text).ids
    assert found["token_strs"] is None


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": []}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "a", "mood": 1}, "mood"),
        ("/tokenize", {"prompt": "a", "model": "other"}, "model"),
        ("/tokenize", {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ("/tokenize", {"messages": [], "add_special_tokens": True}, "add_special_tokens"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
    ],
)
async def test_a_fault_names_its_field(
    serve: Serve, path: str, body: dict[str, Any], param: str
) -> None:
    async with serve(ScriptedService()) as client:
        response = await client.post(path, json=body)
    assert response.status_code == (404 if param == "model" else 400)
    assert response.json()["error"]["param"] == param


async def test_the_version_is_told(serve: Serve) -> None:
    async with serve(ScriptedService()) as client:
        assert set((await client.get("/version")).json()) == {"version"}
