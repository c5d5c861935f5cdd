"""Every topology says what Hugging Face's generate() says, token for token, in fp32."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from tests.cluster.cases import CASES, LENGTHS, LONG_WITH_PICTURES, Case, Client
from tests.cluster.expected import Expected
from tests.cluster.running import encoded
from tests.cluster.setups import TIGHT_TOKENS, Setup
from tests.media.site import Site, body
from tests.reference import Reference

PAIR = CASES["two of one size"]
MANY = {**CASES, **LENGTHS, "long with pictures": LONG_WITH_PICTURES}


@pytest.mark.parametrize("num", range(7))
def test_a_request_alone_equals_generate(client: Client, expected: Expected, num: int) -> None:
    case = CASES[f"{num} pictures"]
    assert client.ask(case.asked()) == expected.answer(case)


@pytest.mark.parametrize("stream", [False, True])
def test_thirty_two_at_once_in_random_order_equal_generate(
    client: Client, expected: Expected, setup: Setup, stream: bool
) -> None:
    """In tight memory those that fit at all, twice: together they need many times what is there."""
    assert len(MANY) == 32
    known = MANY if setup.roomy else {**CASES, **{f"{name} again": CASES[name] for name in CASES}}
    assert sum(expected.answer(case).prompt_tokens for case in known.values()) > 4 * TIGHT_TOKENS
    order = random.Random(stream).sample(sorted(known), 32)
    with ThreadPoolExecutor(32) as threads:
        answers = threads.map(lambda name: client.ask(known[name].asked(), stream=stream), order)
        for name, answer in zip(order, answers, strict=True):
            assert answer == expected.answer(known[name]), name


def test_the_longest_prompt_has_more_than_two_thousand_tokens(expected: Expected) -> None:
    lengths = [expected.answer(case).prompt_tokens for case in LENGTHS.values()]
    assert min(lengths) < 40 < 2000 < max(lengths)


def test_pictures_by_url_equal_generate(client: Client, expected: Expected) -> None:
    case = CASES["pictures in turns"]
    site = Site()

    def url_of(image: Image.Image) -> str:
        path = f"/{len(site.pages)}.png"
        site.pages[path] = body(encoded(image))
        return site.url + path

    try:
        assert client.ask(case.asked(url_of)) == expected.answer(case)
        assert len(site.seen) == len(case.images)
    finally:
        site.close()


def second_turn(case: Case, answer: str) -> Case:
    """The same chat, answered and asked on."""
    turns: list[dict[str, Any]] = [
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "Are you sure of that? Think again, and answer in full."},
    ]
    return replace(case, messages=[*case.messages, *turns])


@pytest.mark.parametrize("name", ["3 pictures", "long text", "text turns"])
def test_a_second_turn_equals_generate(
    client: Client, expected: Expected, setup: Setup, name: str
) -> None:
    """Where KV is cached all whole blocks of the first prompt are, pictures and all."""
    case = CASES[name]
    first = client.ask(case.asked())
    assert first == expected.answer(case)
    after = second_turn(case, first.text)
    second = client.complete(after.asked())
    right = expected.compute(after)
    assert second.choices[0].token_ids == right.token_ids
    assert second.usage.prompt_tokens == right.prompt_tokens
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached >= (first.prompt_tokens - 8) // 32 * 32 if setup.caches else cached == 0
    assert setup.caches == (cached > 0)


def test_the_same_prompt_again_is_cached_but_not_for_another_tenant(
    client: Client, expected: Expected, setup: Setup
) -> None:
    case = Case([{"role": "user", "content": "Tell me of tenants. " * 8}], [])
    right = expected.answer(case)
    cached = []
    for salt in ("one", "one", "two", None):
        answer = client.complete(case.asked(), cache_salt=salt)
        assert answer.choices[0].token_ids == right.token_ids
        cached.append(answer.usage.prompt_tokens_details.cached_tokens)
    assert [number > 0 for number in cached[:3]] == [False, setup.caches, False]
    # The template's beginning may be known to everybody.
    assert cached[3] < 48 < right.prompt_tokens
    assert not setup.caches or cached[1] > 48


@pytest.fixture(scope="module")
def ending_of(expected_of: Callable[[str], Expected]) -> Callable[[str], Case]:
    """A question whose answer the family's model ends by itself."""
    known: dict[str, Case] = {}

    def get(family: str) -> Case:
        if family not in known:
            asked = (Case([{"role": "user", "content": f"Count to {n}."}], []) for n in range(400))
            ends = (c for c in asked if expected_of(family).compute(c).finish_reason == "stop")
            known[family] = next(ends)
        return known[family]

    return get


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_ends_by_itself_equals_generate(
    client: Client,
    expected: Expected,
    setup: Setup,
    ending_of: Callable[[str], Case],
    stream: bool,
) -> None:
    """The eos id counts as generated and is no text."""
    ending = ending_of(setup.family)
    answer = client.ask(ending.asked(), stream=stream)
    assert answer == expected.answer(ending)
    assert answer.finish_reason == "stop"


def test_the_checkpoints_repetition_penalty_is_applied_unless_the_client_says_otherwise(
    client: Client, expected: Expected
) -> None:
    without = client.ask(PAIR.asked(), repetition_penalty=1.0)
    assert without == expected.compute(PAIR, repetition_penalty=1.0)
    assert without.token_ids != expected.answer(PAIR).token_ids


# ---- negative controls: a cluster that computed any of this would have failed above


def zero_rows(reference: Reference, patch: pytest.MonkeyPatch) -> Case:
    _change_rows(reference, patch, torch.zeros_like)
    return PAIR


def rows_one_place_too_far(reference: Reference, patch: pytest.MonkeyPatch) -> Case:
    _change_rows(reference, patch, lambda rows: rows.roll(1, dims=0))
    return PAIR


def no_deepstack(reference: Reference, patch: pytest.MonkeyPatch) -> Case:
    """Only where there is any."""
    _change_deepstack(reference, patch, lambda levels: [torch.zeros_like(rows) for rows in levels])
    return PAIR


def deepstack_of_other_levels(reference: Reference, patch: pytest.MonkeyPatch) -> Case:
    _change_deepstack(reference, patch, lambda levels: [*levels[1:], levels[0]])
    return PAIR


def _change_rows(
    reference: Reference,
    patch: pytest.MonkeyPatch,
    change: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    _change_output(reference, patch, "pooler_output", change)


def _change_deepstack(
    reference: Reference,
    patch: pytest.MonkeyPatch,
    change: Callable[[list[torch.Tensor]], list[torch.Tensor]],
) -> None:
    _change_output(reference, patch, "deepstack_features", change)


def _change_output(
    reference: Reference, patch: pytest.MonkeyPatch, name: str, change: Callable[[Any], Any]
) -> None:
    tower = reference.model.model.visual
    forward = tower.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        found = forward(*args, **kwargs)
        setattr(found, name, change(getattr(found, name)))
        return found

    patch.setattr(tower, "forward", changed)


def rows_of_the_other_picture(reference: Reference, patch: pytest.MonkeyPatch) -> Case:
    return Case(PAIR.messages, PAIR.images[::-1])


def positions_in_one_dimension(reference: Reference, patch: pytest.MonkeyPatch) -> Case:
    def flat(input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        positions = torch.arange(input_ids.shape[1]).expand(3, 1, -1)
        return positions, torch.zeros(1, 1, dtype=torch.int64)

    patch.setattr(reference.model.model, "get_rope_index", flat)
    return PAIR


def another_second_turn(reference: Reference, patch: pytest.MonkeyPatch) -> Case:
    """As if stale KV of an earlier chat were used: its last picture is another one."""
    return Case(PAIR.messages, [PAIR.images[0], PAIR.images[0]])


FAULTS = (
    zero_rows,
    rows_one_place_too_far,
    rows_of_the_other_picture,
    positions_in_one_dimension,
    another_second_turn,
)
DEEP_FAULTS = (no_deepstack, deepstack_of_other_levels)


@pytest.mark.parametrize("fault", [*FAULTS, *DEEP_FAULTS])
def test_a_model_with_a_fault_says_something_else(
    client: Client,
    expected: Expected,
    setup: Setup,
    fault: Callable[[Reference, pytest.MonkeyPatch], Case],
) -> None:
    """The same prompt ids and another answer: the equality is not one of any two models."""
    if fault in DEEP_FAULTS and setup.family != "qwen3_vl":
        pytest.skip("this family has no deepstack rows")
    right = expected.answer(PAIR)
    with pytest.MonkeyPatch.context() as patch:
        wrong = expected.compute(fault(expected.reference, patch))
    answer = client.ask(PAIR.asked())
    assert wrong.prompt_tokens == answer.prompt_tokens
    assert answer.token_ids == right.token_ids != wrong.token_ids
