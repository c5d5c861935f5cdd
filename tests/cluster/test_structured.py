"""Answers in a form: the same tokens in every topology, and they have the form.

What is right is drawn from Hugging Face's logits under the same grammar.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from epd.grammar import json_text, regex_text
from tests.cluster.cases import CASES, Client
from tests.cluster.expected import Expected
from tests.cluster.setups import ON_CUDA, SETUPS, Setup, params

PAIR = CASES["two of one size"]
WILD: dict[str, Any] = {"temperature": 1.5, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
SCHEMA = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}
FORMAT = {"type": "json_schema", "json_schema": {"name": "list", "schema": SCHEMA}}


@pytest.fixture(scope="module", params=params(("1E1P1D",)))
def setup(request: pytest.FixtureRequest) -> Setup:
    """One cluster at a time; where KV is tight, requests are placed again half-way."""
    return (SETUPS | ON_CUDA)[request.param]


def test_an_answer_has_its_form_and_is_the_same_everywhere(
    client: Client, expected: Expected
) -> None:
    """Alone and among others; the first token is prefill's, the others are decode's."""
    with ThreadPoolExecutor(8) as threads:
        asked = {
            seed: threads.submit(
                client.ask, PAIR.asked(), seed=seed, response_format=FORMAT, **WILD
            )
            for seed in range(4)
        }
        free = [threads.submit(client.ask, PAIR.asked(), seed=9, **WILD) for _ in range(3)]
    for seed, answer in asked.items():
        right = expected.sampled(PAIR, seed=seed, grammar=json_text(SCHEMA), **WILD)
        assert answer.result().token_ids == right
    assert len({tuple(one.result().token_ids) for one in free}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_form_ends_the_answer(client: Client, stream: bool) -> None:
    wanted: dict[str, Any] = {"structured_outputs": {"regex": "[a-c]{4}[0-9]"}}
    answer = client.ask(PAIR.asked(), seed=1, stream=stream, **wanted, **WILD)
    assert answer.finish_reason == "stop"
    assert len(answer.text) == 5 and answer.text[4].isdigit() and set(answer.text[:4]) <= set("abc")


def test_a_bad_form_is_refused_before_anything_is_done(client: Client) -> None:
    body = {
        "model": client.cluster.model,
        "messages": [{"role": "user", "content": "hi"}],
        "structured_outputs": {"regex": "(a"},
    }
    response = client.cluster.post(body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "structured_outputs.regex"


def test_the_reference_is_another_one_without_the_grammar(expected: Expected) -> None:
    """Negative control."""
    free = expected.sampled(PAIR, seed=1, **WILD)
    assert free != expected.sampled(PAIR, seed=1, grammar=regex_text("[a-c]{4}[0-9]"), **WILD)
    text = expected.reference.processor.tokenizer.decode(free)
    with pytest.raises(ValueError):
        json.loads(text)
