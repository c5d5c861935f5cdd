"""The engine on models that hear, several requests at once, against the whole model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest, MultiModalEmbeddingData
from epd.models.language import load_language
from epd.models.spec import read_checkpoint
from epd.models.towers import load_towers
from epd.types import RequestKey, SamplingParams
from tests.checkpoints import build
from tests.engine.tiny import collect
from tests.models.in_parts import resolved
from tests.models.sounds import REQUESTS
from tests.models.thinker import Thinker, has_sound

torch.set_num_threads(1)

NAMES = {
    "qwen2_5_omni": ("image and audio", "fractions", "video with sound and audio", "two sounds"),
    "qwen2_audio": ("audio", "two sounds"),
    "qwen3_omni_moe": ("image and audio", "fractions", "video with sound and audio", "two sounds"),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # in transformers' processors
@pytest.mark.parametrize("family", NAMES)
def test_requests_side_by_side_equal_generate(family: str, tmp_path: Path) -> None:
    """Chunks of prompts share forwards with decodes; fractions of positions with whole ones."""
    checkpoint = read_checkpoint(build(family, tmp_path / "tiny"))
    thinker = Thinker(checkpoint.path, checkpoint.architecture)
    modalities = checkpoint.spec.modalities
    towers = load_towers(checkpoint, modalities=modalities, device="cpu", dtype="float32")
    language = load_language(checkpoint, device="cpu", dtype="float32")
    engine = Engine(language, LanguageConfig(kv_tokens=8192, max_step_tokens=48))
    for name in NAMES[family]:
        prompt, items = resolved(thinker, towers, REQUESTS[name])
        embeddings = MultiModalEmbeddingData(prompt)
        for index, rows in enumerate(towers.encode(items)):
            embeddings.add(index, 0, rows)
        positions, delta = language.positions(prompt)
        request = EngineRequest(
            key=RequestKey(name, 0),
            token_ids=prompt.token_ids(),
            positions=positions,
            position_delta=delta,
            sampling=SamplingParams(max_tokens=12),
            embeddings=embeddings,
        )
        assert engine.reserve(request.key, prompt.num_tokens + 12, None, most_cached=0) is not None
        engine.start(request)
    tokens: dict[str, list[int]] = {}
    while engine.has_work:
        collect(tokens, engine.step().tokens)
        engine.check()
    for name in NAMES[family]:
        parts = REQUESTS[name]
        flag = {"use_audio_in_video": True} if has_sound(parts) else {}
        assert tokens[name] == thinker.generate(thinker.inputs(parts), 12, **flag), name
