"""The engine on a checkpoint from disk: processor, towers, language half, against generate()."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest, MultiModalEmbeddingData
from epd.models.language import LanguageModel, load_language
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.towers import Towers, load_towers
from epd.types import FinishReason, Modality, RequestKey, SamplingParams
from tests.checkpoints import build
from tests.models.pictures import messages, pictures, prompt
from tests.reference import Reference

MAX_TOKENS = 24


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path: Path = tmp_path_factory.mktemp("engine") / "tiny"
    return read_checkpoint(build("qwen2_5_vl", path))


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> Reference:
    return Reference(checkpoint.path)


@pytest.fixture(scope="module")
def towers(checkpoint: Checkpoint) -> Towers:
    return load_towers(checkpoint, modalities=(Modality.IMAGE,), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def language(checkpoint: Checkpoint) -> LanguageModel:
    return load_language(checkpoint, device="cpu", dtype="float32")


@pytest.mark.parametrize("step_tokens", [48, 512])
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
    engine = Engine(language, LanguageConfig(kv_tokens=16384, max_step_tokens=step_tokens))
    for num in range(7):
        asked, items = prompt(reference, towers, num)
        rows = MultiModalEmbeddingData(asked)
        for index, encoded in enumerate(towers.encode(items)):
            rows.add(index, 0, encoded)
        positions, delta = language.positions(asked)
        request = EngineRequest(
            key=RequestKey(str(num), 0),
            token_ids=asked.token_ids(),
            positions=positions,
            position_delta=delta,
            sampling=sampling,
            embeddings=rows,
        )
        assert engine.reserve(request.key, asked.num_tokens + MAX_TOKENS) == 0
        engine.start(request)
    tokens: dict[str, list[int]] = {str(num): [] for num in range(7)}
    reasons: dict[str, FinishReason] = {}
    while engine.has_work:
        result = engine.step()
        assert not result.failed
        for run in result.tokens:
            tokens[run.request.request_id] += run.token_ids
            if run.finish_reason is not None:
                reasons[run.request.request_id] = run.finish_reason
    for num in range(7):
        _, expected = reference.generate(messages(num), pictures(num), MAX_TOKENS)
        assert tokens[str(num)] == expected, num
        ended = expected[-1] in checkpoint.eos_token_ids
        assert reasons[str(num)] is (FinishReason.STOP if ended else FinishReason.LENGTH)
    engine.check()
    assert engine.used_blocks == 0


def test_rows_of_another_request_would_be_noticed(
    reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    """Negative control: same layout, another picture's rows."""
    asked, items = prompt(reference, towers, 2)
    (encoded, *_) = towers.encode(items)
    answers = []
    for rows_of_first in (encoded, torch.zeros_like(encoded)):
        rows = MultiModalEmbeddingData(asked)
        rows.add(0, 0, rows_of_first)
        rows.add(1, 0, towers.encode(items)[1])
        positions, delta = language.positions(asked)
        request = EngineRequest(
            key=RequestKey("r", 0),
            token_ids=asked.token_ids(),
            positions=positions,
            position_delta=delta,
            sampling=SamplingParams(max_tokens=12),
            embeddings=rows,
        )
        engine = Engine(language, LanguageConfig(kv_tokens=4096))
        assert engine.reserve(request.key, asked.num_tokens + 12) == 0
        engine.start(request)
        answer: list[int] = []
        while engine.has_work:
            for run in engine.step().tokens:
                answer += run.token_ids
        answers.append(answer)
    assert answers[0] != answers[1]
