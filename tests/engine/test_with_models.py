"""The engine on a checkpoint from disk: processor, towers, language half, against generate()."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest, MultiModalEmbeddingData
from epd.models.language import LanguageModel, load_language
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.towers import Towers, load_towers
from epd.types import FinishReason, Modality, Prompt, RequestKey, SamplingParams
from tests.checkpoints import FAMILIES, build
from tests.models.faults import FAULTS, Rows, inflict
from tests.models.pictures import messages, pictures, prompt
from tests.reference import Reference

torch.set_num_threads(1)  # several threads on cores that others use are slower, not faster

MAX_TOKENS = 24


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path: Path = tmp_path_factory.mktemp("engine") / "tiny"
    return read_checkpoint(build(family, path))


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> Reference:
    return Reference(checkpoint.path)


@pytest.fixture(scope="module")
def towers(checkpoint: Checkpoint) -> Towers:
    return load_towers(checkpoint, modalities=(Modality.IMAGE,), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def language(checkpoint: Checkpoint) -> LanguageModel:
    return load_language(checkpoint, device="cpu", dtype="float32")


def request_of(
    name: str,
    asked: Prompt,
    rows: Rows,
    places: tuple[torch.Tensor, float],
    sampling: SamplingParams,
) -> EngineRequest:
    """With all its rows landed. `places` are positions and delta."""
    embeddings = MultiModalEmbeddingData(asked)
    for index, encoded in enumerate(rows):
        embeddings.add(index, 0, encoded)
    positions, delta = places
    return EngineRequest(
        key=RequestKey(name, 0),
        token_ids=asked.token_ids(),
        positions=positions,
        position_delta=delta,
        sampling=sampling,
        embeddings=embeddings,
    )


def answers(
    language: LanguageModel, requests: list[EngineRequest], step_tokens: int
) -> dict[str, tuple[list[int], FinishReason | None]]:
    """What one engine says to all of them at once, by name. Nothing may be left in it."""
    engine = Engine(language, LanguageConfig(kv_tokens=16384, max_step_tokens=step_tokens))
    for request in requests:
        num_tokens = len(request.token_ids) + request.sampling.max_tokens
        assert engine.reserve(request.key, num_tokens) is not None
        engine.start(request)
    tokens: dict[str, list[int]] = {request.key.request_id: [] for request in requests}
    reasons: dict[str, FinishReason | None] = {}
    while engine.has_work:
        result = engine.step()
        assert not result.failed
        for run in result.tokens:
            tokens[run.request.request_id] += run.token_ids
            reasons[run.request.request_id] = run.finish_reason
    engine.check()
    assert engine.used_blocks == 0
    return {name: (tokens[name], reasons[name]) for name in tokens}


@pytest.mark.parametrize("step_tokens", [16, pytest.param(48, marks=pytest.mark.slow), 512])
def test_seven_requests_with_up_to_six_pictures_equal_generate(
    step_tokens: int,
    checkpoint: Checkpoint,
    reference: Reference,
    towers: Towers,
    language: LanguageModel,
) -> None:
    """All in one engine, with the checkpoint's repetition penalty and eos ids."""
    penalty = reference.model.generation_config.repetition_penalty
    assert penalty != 1.0 and len(checkpoint.eos_token_ids) == 2
    sampling = SamplingParams(
        repetition_penalty=penalty, max_tokens=MAX_TOKENS, stop_token_ids=checkpoint.eos_token_ids
    )
    requests = []
    for num in range(7):
        asked, items = prompt(reference, towers, num)
        rows, places = towers.encode(items), language.positions(asked)
        requests.append(request_of(str(num), asked, rows, places, sampling))
    found = answers(language, requests, step_tokens)
    for num in range(7):
        _, expected = reference.generate(messages(num), pictures(num), MAX_TOKENS)
        ended = expected[-1] in checkpoint.eos_token_ids
        reason = FinishReason.STOP if ended else FinishReason.LENGTH
        assert found[str(num)] == (expected, reason), num


@pytest.fixture(scope="module")
def free_answers(reference: Reference) -> dict[int, list[int]]:
    """Six tokens to one, two and three pictures, whatever they are."""
    options: dict[str, Any] = {"repetition_penalty": 1.0, "eos_token_id": -1}
    return {
        num: reference.generate(messages(num), pictures(num), 6, **options)[1] for num in (1, 2, 3)
    }


@given(step_tokens=st.integers(1, 300))
@settings(max_examples=6)
def test_a_picture_may_be_split_between_chunks_at_any_place(
    step_tokens: int,
    free_answers: dict[int, list[int]],
    reference: Reference,
    towers: Towers,
    language: LanguageModel,
) -> None:
    """Chunks of three requests packed together, so that a forward has rows of several pictures."""
    sampling = SamplingParams(max_tokens=6)
    requests = []
    for num in free_answers:
        asked, items = prompt(reference, towers, num)
        rows, places = towers.encode(items), language.positions(asked)
        requests.append(request_of(str(num), asked, rows, places, sampling))
    found = answers(language, requests, step_tokens)
    assert {num: found[str(num)][0] for num in free_answers} == free_answers


@pytest.mark.parametrize(("family", "fault"), FAULTS, indirect=["family"], scope="module")
def test_a_fault_would_be_noticed(
    fault: str, reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    """Negative controls: the equality above would not hold by accident."""
    asked, items = prompt(reference, towers, 2)
    right = towers.encode(items), language.hidden_size, *language.positions(asked)
    found = []
    for rows, positions, delta in ((right[0], *right[2:]), inflict(fault, *right)):
        sampling = SamplingParams(max_tokens=12)
        request = request_of("r", asked, rows, (positions, delta), sampling)
        found.append(answers(language, [request], 512)["r"][0])
    assert found[0] != found[1]
