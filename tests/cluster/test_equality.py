"""Every topology says what Hugging Face's generate() says, token for token, in fp32.

One cluster runs at a time and answers all tests that it can. "tight" is 1E1P1D with as little room
as it can live with: requests wait for KV, rows are evicted and made again, prompts are computed in
chunks, rows and KV come in many small frames over sockets instead of shared memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from PIL import Image

from epd.engine.sampler import Sampler
from epd.types import SamplingParams
from tests.cluster.cases import CASES, MAX_TOKENS, Answer, Case, Client
from tests.cluster.running import Cluster, encoded
from tests.media.site import Site, body
from tests.reference import Reference

KV_TOKENS = 640
TIGHT = (
    f"language.kv_tokens={KV_TOKENS}",
    "language.max_step_tokens=64",
    "language.rows_bytes=8192",
    "encode.rows_bytes=65536",
    "wire.chunk_bytes=4096",
    "wire.shm_bytes=0",
)
CLUSTERS: dict[str, tuple[str, ...]] = {
    "EPD": ("EPD",),
    "1E1PD": ("1E1PD",),
    "1E1P1D": ("1E1P1D",),
    "tight": ("1E1P1D", *TIGHT),
}
ON_CUDA = {f"{name} on cuda": (name, "device=cuda") for name in ("EPD", "1E1PD", "1E1P1D")}
PAIR = CASES["two of one size"]


@pytest.fixture(
    scope="module",
    params=[*CLUSTERS, *(pytest.param(name, marks=pytest.mark.gpu) for name in ON_CUDA)],
)
def client(path: Any, request: pytest.FixtureRequest) -> Iterator[Client]:
    topology, *settings = (CLUSTERS | ON_CUDA)[request.param]
    cluster = Cluster(path, topology, "media.allow_private_addresses=true", *settings)
    client = Client(cluster)
    yield client
    client.close()
    assert cluster.stop() == 0


@pytest.fixture(scope="module")
def expected(reference: Reference) -> Callable[[Case], Answer]:
    """The reference's answer, computed once per case."""
    known: dict[int, Answer] = {}

    def get(case: Case) -> Answer:
        if id(case) not in known:
            known[id(case)] = answer_of(reference, case)
        return known[id(case)]

    return get


def answer_of(reference: Reference, case: Case, **options: Any) -> Answer:
    prompt_ids, new_ids = reference.generate(case.messages, case.images, MAX_TOKENS, **options)
    ended = new_ids[-1] in reference.model.generation_config.eos_token_id
    return Answer(
        token_ids=new_ids,
        text=reference.processor.tokenizer.decode(new_ids, skip_special_tokens=True),
        prompt_tokens=len(prompt_ids),
        completion_tokens=len(new_ids),
        finish_reason="stop" if ended else "length",
    )


@pytest.mark.parametrize("num", range(7))
def test_a_request_alone_equals_generate(
    client: Client, expected: Callable[[Case], Answer], num: int
) -> None:
    case = CASES[f"{num} pictures"]
    assert client.ask(case.asked()) == expected(case)


@pytest.mark.parametrize("stream", [False, True])
def test_sixteen_at_once_in_random_order_equal_generate(
    client: Client, expected: Callable[[Case], Answer], stream: bool
) -> None:
    assert len(CASES) == 16
    assert sum(expected(case).prompt_tokens + MAX_TOKENS for case in CASES.values()) > KV_TOKENS
    order = random.Random(stream).sample(sorted(CASES), 16)
    with ThreadPoolExecutor(16) as threads:
        answers = threads.map(lambda name: client.ask(CASES[name].asked(), stream=stream), order)
        for name, answer in zip(order, answers, strict=True):
            assert answer == expected(CASES[name]), name


def test_pictures_by_url_equal_generate(client: Client, expected: Callable[[Case], Answer]) -> None:
    case = CASES["pictures in turns"]
    site = Site()

    def url_of(image: Image.Image) -> str:
        path = f"/{len(site.pages)}.png"
        site.pages[path] = body(encoded(image))
        return site.url + path

    try:
        assert client.ask(case.asked(url_of)) == expected(case)
        assert len(site.seen) == len(case.images)
    finally:
        site.close()


@pytest.fixture(scope="module")
def ending(reference: Reference) -> Case:
    """A question whose answer the model ends by itself."""
    for number in range(200):
        case = Case([{"role": "user", "content": f"Count to {number}."}], [])
        if answer_of(reference, case).finish_reason == "stop":
            return case
    raise AssertionError("no answer ends with an eos id")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_ends_by_itself_equals_generate(
    client: Client, expected: Callable[[Case], Answer], ending: Case, stream: bool
) -> None:
    """The eos id counts as generated and is no text."""
    answer = client.ask(ending.asked(), stream=stream)
    assert answer == expected(ending)
    assert answer.finish_reason == "stop"


def test_the_checkpoints_repetition_penalty_is_applied_unless_the_client_says_otherwise(
    client: Client, reference: Reference, expected: Callable[[Case], Answer]
) -> None:
    without = client.ask(PAIR.asked(), repetition_penalty=1.0)
    assert without == answer_of(reference, PAIR, repetition_penalty=1.0)
    assert without.token_ids != expected(PAIR).token_ids


class Draw:
    """Makes generate() take what epd's sampler draws from Hugging Face's logits."""

    def __init__(self, sampling: SamplingParams, num_prompt: int) -> None:
        self._sampling = sampling
        self._num_prompt = num_prompt
        self._sampler: Sampler | None = None

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if self._sampler is None:
            self._sampler = Sampler(vocab_size=logits.shape[-1], device=logits.device)
            tokens, at = ids[0].tolist(), self._num_prompt
            self._sampler.add("r", self._sampling, 0, tokens[:at], tokens[at:])
        drawn = self._sampler.sample(logits, ["r"]).ids
        return torch.full_like(logits, -torch.inf).index_fill(1, drawn, 0.0)


def sampled(reference: Reference, case: Case, **sampling: Any) -> list[int]:
    """The one right answer of a seed, whatever computes the logits."""
    num_prompt = reference.inputs(case.messages, case.images)["input_ids"].shape[1]
    draw = Draw(SamplingParams(**sampling), num_prompt)
    _, new_ids = reference.generate(
        case.messages, case.images, MAX_TOKENS, repetition_penalty=1.0, logits_processor=[draw]
    )
    return new_ids


def test_a_seed_gives_the_same_tokens_everywhere_alone_or_among_others(
    client: Client, reference: Reference
) -> None:
    """The expected tokens come from whole-model logits, so they are those of every topology."""
    wanted: dict[str, Any] = {
        "temperature": 1.3,
        "top_p": 0.95,
        "top_k": 200,
        "repetition_penalty": 1.1,
    }
    expected = {seed: sampled(reference, PAIR, seed=seed, **wanted) for seed in (7, 8)}
    assert expected[7] != expected[8]
    assert client.ask(PAIR.asked(), seed=7, **wanted).token_ids == expected[7]
    order = random.Random(0).sample(sorted(CASES), 16)
    with ThreadPoolExecutor(18) as threads:
        others = [threads.submit(client.ask, CASES[name].asked(), seed=1) for name in order[:8]]
        answers = {s: threads.submit(client.ask, PAIR.asked(), seed=s, **wanted) for s in expected}
        others += [threads.submit(client.ask, CASES[n].asked(), temperature=1) for n in order[8:]]
        assert {seed: answer.result().token_ids for seed, answer in answers.items()} == expected
        assert all(other.result().token_ids for other in others)


def test_a_silent_request_samples_with_the_checkpoints_defaults(
    client: Client, reference: Reference
) -> None:
    defaults = reference.model.generation_config
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    wanted = {name: getattr(defaults, name) for name in names}
    expected = sampled(reference, PAIR, seed=3, **wanted)
    assert client.ask(PAIR.asked(), temperature=None, seed=3).token_ids == expected


# ---- negative controls: a cluster that computed any of this would have failed above


def zero_rows(reference: Reference, patch: pytest.MonkeyPatch) -> Case:
    _change_rows(reference, patch, torch.zeros_like)
    return PAIR


def rows_one_place_too_far(reference: Reference, patch: pytest.MonkeyPatch) -> Case:
    _change_rows(reference, patch, lambda rows: rows.roll(1, dims=0))
    return PAIR


def _change_rows(
    reference: Reference,
    patch: pytest.MonkeyPatch,
    change: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    tower = reference.model.model.visual
    forward = tower.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        found = forward(*args, **kwargs)
        found.pooler_output = change(found.pooler_output)
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


FAULTS = (zero_rows, rows_one_place_too_far, rows_of_the_other_picture, positions_in_one_dimension)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_with_a_fault_says_something_else(
    client: Client,
    reference: Reference,
    expected: Callable[[Case], Answer],
    fault: Callable[[Reference, pytest.MonkeyPatch], Case],
) -> None:
    """The same prompt ids and another answer: the equality is not one of any two models."""
    right = expected(PAIR)
    with pytest.MonkeyPatch.context() as patch:
        wrong = answer_of(reference, fault(reference, patch))
    answer = client.ask(PAIR.asked())
    assert wrong.prompt_tokens == answer.prompt_tokens
    assert answer.token_ids == right.token_ids != wrong.token_ids
