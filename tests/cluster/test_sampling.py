"""Sampling gives the same tokens in every topology and batch, and every control does what it says.

What is right is drawn from Hugging Face's logits by the same sampler, which tests of its own hold
against plain implementations of every control.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.cluster.cases import CASES, MAX_TOKENS, Client
from tests.cluster.expected import Expected
from tests.cluster.setups import ON_CUDA, SETUPS, Setup, params

PAIR = CASES["two of one size"]
WILD: dict[str, Any] = {"temperature": 1.3, "top_p": 0.95, "top_k": 200, "repetition_penalty": 1.1}
NEUTRAL: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}

CONTROLS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 1.7},
    "top_p": {"temperature": 1.5, "top_p": 0.6},
    "top_k": {"temperature": 1.5, "top_k": 5},
    "min_p": {"temperature": 2.0, "min_p": 0.2},
    "repetition_penalty": {"repetition_penalty": 1.4},
    "presence_penalty": {"presence_penalty": 1.5},
    "frequency_penalty": {"frequency_penalty": 0.9},
    "all": {
        "temperature": 1.4,
        "top_p": 0.9,
        "top_k": 300,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
    },
}


@pytest.fixture(scope="module", params=params(("1E1P1D", "qwen3_vl 2E2P2D")))
def setup(request: pytest.FixtureRequest) -> Setup:
    """One cluster at a time. Most wait until there is time: equality is asked of more."""
    return (SETUPS | ON_CUDA)[request.param]


def test_a_seed_gives_the_same_tokens_everywhere_alone_or_among_others(
    client: Client, expected: Expected
) -> None:
    right = {seed: expected.sampled(PAIR, seed=seed, **WILD) for seed in (7, 8)}
    assert right[7] != right[8]
    assert client.ask(PAIR.asked(), seed=7, **WILD).token_ids == right[7]
    order = random.Random(0).sample(sorted(CASES), 16)
    with ThreadPoolExecutor(18) as threads:
        others = [threads.submit(client.ask, CASES[name].asked(), seed=1) for name in order[:8]]
        answers = {s: threads.submit(client.ask, PAIR.asked(), seed=s, **WILD) for s in right}
        others += [threads.submit(client.ask, CASES[n].asked(), temperature=1) for n in order[8:]]
        assert {seed: answer.result().token_ids for seed, answer in answers.items()} == right
        assert all(other.result().token_ids for other in others)


def test_a_silent_request_samples_with_the_checkpoints_defaults(
    client: Client, expected: Expected
) -> None:
    defaults = expected.reference.model.generation_config
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    right = expected.sampled(PAIR, seed=3, **{name: getattr(defaults, name) for name in names})
    assert client.ask(PAIR.asked(), temperature=None, seed=3).token_ids == right


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_changes_the_tokens_as_it_should(
    client: Client, expected: Expected, name: str
) -> None:
    """Some ids are likely enough to come again, so that penalties have something to do."""
    bias = {str(token): 8.0 for token in range(100, 104)}
    pairs = tuple((int(token), value) for token, value in bias.items())
    wanted = {**NEUTRAL, **CONTROLS[name]}
    right = expected.sampled(PAIR, seed=5, logit_bias=pairs, **wanted)
    assert client.ask(PAIR.asked(), seed=5, logit_bias=bias, **wanted).token_ids == right
    assert right != expected.sampled(PAIR, seed=5, logit_bias=pairs, **NEUTRAL)


def test_a_bias_bans_and_forces_tokens(client: Client, expected: Expected) -> None:
    plain = expected.sampled(PAIR, **NEUTRAL)
    bias = {str(plain[0]): -100.0, "77": 3.5}
    pairs = tuple((int(token), value) for token, value in bias.items())
    right = expected.sampled(PAIR, logit_bias=pairs, **NEUTRAL)
    answer = client.ask(PAIR.asked(), logit_bias=bias, **NEUTRAL)
    assert answer.token_ids == right
    assert plain[0] not in right


def test_several_choices_are_each_what_their_number_gives(
    client: Client, expected: Expected
) -> None:
    """One prompt, several answers; alone with its number each would be the same."""
    right = [expected.sampled(PAIR, choice, seed=9, **WILD) for choice in range(4)]
    assert len(set(map(tuple, right))) == 4
    whole = client.complete(PAIR.asked(), n=4, seed=9, **WILD)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert [choice.token_ids for choice in whole.choices] == right
    assert whole.usage.completion_tokens == sum(map(len, right))


def test_a_stop_string_ends_one_choice_and_not_the_others(
    client: Client, expected: Expected
) -> None:
    free = client.complete(PAIR.asked(), n=3, seed=9, **WILD).choices
    stop = next(
        part
        for part in (free[1].message.content[at : at + 3] for at in range(4, 40))
        if part and part not in free[0].message.content and part not in free[2].message.content
    )
    stopped = client.complete(PAIR.asked(), n=3, seed=9, stop=stop, **WILD).choices
    assert [choice.finish_reason for choice in stopped] == [
        free[0].finish_reason,
        "stop",
        free[2].finish_reason,
    ]
    assert stopped[1].message.content == free[1].message.content.partition(stop)[0]
    assert [stopped[k].token_ids for k in (0, 2)] == [free[k].token_ids for k in (0, 2)]


def test_an_ignored_end_and_a_least_length_keep_the_answer_going(
    client: Client, expected: Expected
) -> None:
    """The most likely token is made an eos by the client."""
    first = expected.sampled(PAIR, **NEUTRAL)[0]
    ended = client.ask(PAIR.asked(), stop_token_ids=[first], **NEUTRAL)
    assert (ended.token_ids, ended.finish_reason) == ([first], "stop")
    later = client.ask(PAIR.asked(), stop_token_ids=[first], min_tokens=6, **NEUTRAL)
    eos = tuple(expected.reference.model.generation_config.eos_token_id)
    right = expected.sampled(PAIR, min_tokens=6, stop_token_ids=(*eos, first), **NEUTRAL)
    assert later.token_ids[:6] == right[:6]
    assert first not in later.token_ids[:6]
    whole = client.ask(PAIR.asked(), ignore_eos=True, **NEUTRAL)
    assert (whole.completion_tokens, whole.finish_reason) == (MAX_TOKENS, "length")


def test_logprobs_are_the_models_own(client: Client, expected: Expected) -> None:
    """Those of one whole forward over prompt and answer, whatever penalties chose the tokens."""
    whole = client.complete(
        PAIR.asked(), logprobs=True, top_logprobs=5, prompt_logprobs=2, seed=4, **WILD
    )
    [choice] = whole.choices
    inputs = expected.reference.inputs(PAIR.messages, PAIR.images)
    num_prompt = inputs["input_ids"].shape[1]
    answer = torch.tensor([choice.token_ids])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = torch.nn.functional.pad(
        inputs["mm_token_type_ids"], (0, answer.shape[1])
    )
    with torch.inference_mode():
        logits = expected.reference.model(**inputs).logits[0].double().log_softmax(-1)
    assert len(choice.logprobs.content) == len(choice.token_ids)
    for at, (token, entry) in enumerate(
        zip(choice.token_ids, choice.logprobs.content, strict=True), num_prompt - 1
    ):
        assert entry.logprob == pytest.approx(float(logits[at, token]), abs=1e-3)
        best = logits[at].topk(5).values.tolist()
        assert [top.logprob for top in entry.top_logprobs] == pytest.approx(best, abs=1e-3)
    first, *rest = whole.prompt_logprobs
    assert first is None
    assert len(rest) == num_prompt - 1
    prompt = inputs["input_ids"][0].tolist()
    picture = expected.reference.model.config.image_token_id
    assert [entries is None for entries in rest] == [
        token == picture for token in prompt[1:num_prompt]
    ]
    assert whole.usage.prompt_tokens_details.image_tokens == prompt.count(picture) > 0
    for at, entries in enumerate(rest):
        if entries is None:  # a row is no token
            continue
        found = entries[str(prompt[at + 1])]["logprob"]
        assert found == pytest.approx(float(logits[at, prompt[at + 1]]), abs=1e-3)
        assert len(entries) >= 2
