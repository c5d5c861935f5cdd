"""The engine on compiled decode steps: every token is the one that exact logits would choose."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epd.attention import PagedBatch, PagedSequence, SdpaBackend
from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest
from epd.models.language import LanguageModel, load_language
from epd.models.spec import Checkpoint, read_checkpoint
from epd.types import RequestKey, SamplingParams
from tests.checkpoints import FAMILIES, build

MAX_TOKENS = 20
PROMPTS = [
    [(token * 31 + number * 7) % 1000 for token in range(9 + 13 * number)] for number in (0, 1, 2)
]


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    return read_checkpoint(build(request.param, tmp_path_factory.mktemp("engine") / "tiny"))


@pytest.fixture(scope="module")
def compiled(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    cache: Path = tmp_path_factory.mktemp("cache") / "compiled"
    model = load_language(checkpoint, device="cpu", dtype="bfloat16", cache=cache)
    if model._compiled is None:
        pytest.skip("nothing is compiled on this machine")
    return model


def answers(model: LanguageModel) -> list[list[int]]:
    """Greedy, all prompts at once, in blocks that they take and give back."""
    engine = Engine(model, LanguageConfig(kv_tokens=1024, max_step_tokens=16))
    for number, prompt in enumerate(PROMPTS):
        request = EngineRequest(
            key=RequestKey(str(number), 0),
            token_ids=prompt,
            positions=torch.arange(len(prompt)),
            position_delta=0,
            sampling=SamplingParams(max_tokens=MAX_TOKENS),
        )
        assert engine.reserve(request.key, len(prompt)) is not None
        engine.start(request)
    tokens: list[list[int]] = [[] for _ in PROMPTS]
    while engine.has_work:
        for run in engine.step().tokens:
            tokens[int(run.request.request_id)] += run.token_ids
    engine.check()
    return tokens


def regret(model: LanguageModel, prompt: list[int], answer: list[int]) -> float:
    """By how much the chosen tokens' logits miss the highest, at most, in standard deviations."""
    ids = torch.tensor(prompt + answer)
    shape = (model.num_layers, 128, model.kv_heads, model.head_dim)
    pages = torch.zeros(2, *shape)
    whole = PagedSequence(len(ids), len(ids), range(8))
    plan = SdpaBackend().bind(PagedBatch((whole,), pages[0], pages[1], 16))
    hidden = model.forward(model.embed(ids), torch.arange(len(ids)), plan)
    logits = model.logits(hidden[len(prompt) - 1 : -1])
    chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    return float(((logits.max(1).values - chosen) / logits.std(1)).max())


def test_every_token_is_the_best_one(compiled: LanguageModel, checkpoint: Checkpoint) -> None:
    exact = load_language(checkpoint, device="cpu", dtype="float32")
    found = answers(compiled)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        assert len(answer) == MAX_TOKENS
        assert regret(exact, prompt, answer) < 0.3
        other = [*answer[:10], (answer[10] + 1) % 1000, *answer[11:]]
        assert regret(exact, prompt, other) > 1.0  # negative control


def test_without_the_screened_head_the_tokens_are_the_same(compiled: LanguageModel) -> None:
    found = answers(compiled)
    assert compiled._screened is not None
    kept, compiled._screened = compiled._screened, None
    try:
        assert answers(compiled) == found
    finally:
        compiled._screened = kept
