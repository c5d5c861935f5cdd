"""Defaults as `generate()` resolves them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from epd.errors import BadRequest, ConfigError
from epd.gateway.sampling import check_defaults, resolve
from epd.gateway.schemas import MAX_TOKENS, ChatRequest
from epd.models.spec import Checkpoint
from epd.types import SamplingParams

SAMPLES = {
    "do_sample": True,
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "repetition_penalty": 1.05,
    "min_p": 0.1,
    "min_new_tokens": 2,
}


def resolved(checkpoint: Checkpoint, generation: dict[str, Any], **fields: Any) -> SamplingParams:
    messages = [{"role": "user", "content": "hi"}]
    request = ChatRequest.model_validate({"model": "m", "messages": messages, **fields})
    return resolve(request, replace(checkpoint, generation=generation))


def test_a_silent_request_takes_the_checkpoints_values(checkpoint: Checkpoint) -> None:
    found = resolved(checkpoint, SAMPLES)
    assert found == SamplingParams(
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        min_p=0.1,
        repetition_penalty=1.05,
        seed=found.seed,
        min_tokens=2,
        max_tokens=MAX_TOKENS,
        stop_token_ids=checkpoint.eos_token_ids,
    )


def test_a_request_beats_the_checkpoint(checkpoint: Checkpoint) -> None:
    found = resolved(
        checkpoint,
        SAMPLES,
        temperature=0,
        top_p=0.5,
        top_k=-1,
        min_p=0,
        min_tokens=0,
        repetition_penalty=1,
        seed=-1,
    )
    assert (found.min_p, found.min_tokens) == (0.0, 0)
    assert (found.temperature, found.top_p, found.top_k) == (0.0, 0.5, 0)
    assert (found.repetition_penalty, found.seed) == (1.0, 2**63 - 1)


def test_a_checkpoint_that_does_not_sample_is_greedy(checkpoint: Checkpoint) -> None:
    """Its other values stay: the penalty counts in greedy search too."""
    generation = {**SAMPLES, "do_sample": False}
    assert resolved(checkpoint, generation, top_p=0.9).temperature == 0.0
    assert resolved(checkpoint, generation).repetition_penalty == 1.05
    assert resolved(checkpoint, {}).temperature == 0.0
    assert resolved(checkpoint, generation, temperature=0.3).temperature == 0.3


def test_what_nobody_says_is_the_librarys_default(checkpoint: Checkpoint) -> None:
    found = resolved(checkpoint, {"do_sample": True, "top_p": None})
    assert (found.temperature, found.top_p, found.top_k) == (1.0, 1.0, 50)


def test_every_eos_id_stops_and_the_clients_ids_too(checkpoint: Checkpoint) -> None:
    assert len(checkpoint.eos_token_ids) == 2
    eos = checkpoint.eos_token_ids
    found = resolved(checkpoint, {}, stop_token_ids=[7, eos[0]])
    assert found.stop_token_ids == (*eos, 7)


def test_an_ignored_eos_leaves_the_clients_own_ids(checkpoint: Checkpoint) -> None:
    assert resolved(checkpoint, {}, ignore_eos=True).stop_token_ids == ()
    assert resolved(checkpoint, {}, ignore_eos=True, stop_token_ids=[7]).stop_token_ids == (7,)
    assert resolved(checkpoint, {}, ignore_eos=False).stop_token_ids == checkpoint.eos_token_ids


def test_a_token_outside_of_the_vocabulary_is_refused(checkpoint: Checkpoint) -> None:
    bad = checkpoint.vocab_size
    for name, value in (("stop_token_ids", [bad]), ("logit_bias", {str(bad): 1, "3": 1})):
        with pytest.raises(BadRequest) as caught:
            resolved(checkpoint, {}, **{name: value})
        assert caught.value.param == name
    assert resolved(checkpoint, {}, logit_bias={str(bad - 1): 1}).logit_bias == ((bad - 1, 1.0),)


def test_the_controls_of_a_request_reach_the_sampler(checkpoint: Checkpoint) -> None:
    wanted = {"n": 3, "min_p": 0.2, "presence_penalty": -2, "frequency_penalty": 1.5}
    counted = {"min_tokens": 4, "max_tokens": 4, "prompt_logprobs": 0}
    found = resolved(checkpoint, {}, logit_bias={"9": -100, "5": 0.5}, **wanted, **counted)
    for name, value in {**wanted, **counted, "first_choice": 0}.items():
        assert getattr(found, name) == value
    assert found.logit_bias == ((5, 0.5), (9, -100.0))


def test_logprobs_are_made_for_those_who_ask(checkpoint: Checkpoint) -> None:
    assert resolved(checkpoint, {}).logprobs is resolved(checkpoint, {}, logprobs=False).logprobs
    assert resolved(checkpoint, {}).prompt_logprobs is None
    assert resolved(checkpoint, {}, logprobs=True).logprobs == 0
    assert resolved(checkpoint, {}, logprobs=True, top_logprobs=20).logprobs == 20


def test_the_checkpoints_least_length_yields_to_the_clients_limit(checkpoint: Checkpoint) -> None:
    assert resolved(checkpoint, {"min_new_tokens": 9}, max_tokens=5).min_tokens == 5


def test_max_completion_tokens_and_max_tokens_are_one(checkpoint: Checkpoint) -> None:
    assert resolved(checkpoint, {}, max_tokens=3).max_tokens == 3
    assert resolved(checkpoint, {}, max_completion_tokens=4).max_tokens == 4


def test_seeds_differ_where_none_is_given(checkpoint: Checkpoint) -> None:
    seeds = {resolved(checkpoint, {}).seed for _ in range(8)}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)


def test_settings_that_answers_do_not_follow_are_listed(checkpoint: Checkpoint) -> None:
    generation = {
        **SAMPLES,
        "min_length": 9,
        "num_beams": 4,
        "typical_p": 1.0,
        "bad_words_ids": None,
    }
    assert check_defaults(replace(checkpoint, generation=generation)) == ["min_length", "num_beams"]
    with pytest.raises(ConfigError, match="top_k"):
        check_defaults(replace(checkpoint, generation={"top_k": "many"}))
