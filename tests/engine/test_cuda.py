"""The engine on a GPU, where steps of decodes are read one step late, against the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from epd.config.sections import LanguageConfig
from epd.engine import Engine
from epd.models.language import load_language
from epd.models.spec import read_checkpoint
from tests.checkpoints import build
from tests.engine.tiny import finish, greedy, make_case, make_request, start

pytestmark = pytest.mark.gpu

CASES = [make_case(1, texts=(9,)), make_case(4, texts=(130,)), make_case(5, texts=(61,))]


def test_answers_equal_those_of_the_cpu(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(build("qwen2_5_vl", tmp_path / "tiny"))
    answers = []
    for device in ("cpu", "cuda"):
        model = load_language(checkpoint, device=device, dtype="float32")
        engine = Engine(model, LanguageConfig(kv_tokens=2048, max_step_tokens=64))
        for number, case in enumerate(CASES):
            penalty = 1.0 + 0.2 * number
            sampling = greedy(12 + number, repetition_penalty=penalty)
            start(engine, make_request(f"r{number}", case, sampling))
        answers.append(finish(engine))
        assert engine.used_blocks == 0
    assert answers[0] == answers[1]
