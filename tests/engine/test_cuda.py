"""The engine on a GPU, where steps are read one step late, against the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epd.config.sections import LanguageConfig
from epd.engine import Engine
from epd.models.language import load_language
from epd.models.spec import read_checkpoint
from epd.types import RequestKey, SamplingParams
from tests.checkpoints import BUILDERS, FAMILIES, build
from tests.engine.test_ranks import asked, request_of, run
from tests.engine.tiny import finish, greedy, make_case, make_request, start
from tests.waits import waits

pytestmark = pytest.mark.gpu

CASES = [make_case(1, texts=(9,)), make_case(4, texts=(130,)), make_case(5, texts=(61,))]

WAITS = {"_Coming.read"}
"""Where a step may wait for an event: to read the ids of a step that was launched before."""

FEW: dict[str, Any] = {"max_running": 4, "max_step_tokens": 64}


@pytest.mark.simulated
def test_answers_equal_those_of_the_cpu(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(build("qwen2_5_vl", tmp_path / "tiny"))
    answers = []
    for device in ("cpu", "cuda"):
        model = load_language(checkpoint, device=device, dtype="float32")
        engine = Engine(model, LanguageConfig(kv_tokens=2048, **FEW))
        start_all(engine)
        answers.append(finish(engine))
        assert engine.used_blocks == 0
    assert answers[0] == answers[1]


def start_all(engine: Engine) -> None:
    for number, case in enumerate(CASES):
        penalty = 1.0 + 0.2 * number
        sampling = greedy(12 + number, repetition_penalty=penalty)
        start(engine, make_request(f"r{number}", case, sampling))


@pytest.mark.parametrize("family", [name for name in BUILDERS if not name.endswith("_inside")])
def test_every_family_says_what_it_says_on_the_cpu(family: str, tmp_path: Path) -> None:
    """With rows, in chunks, token for token in float32."""
    checkpoint = read_checkpoint(build(family, tmp_path / "tiny"))
    said = []
    for device in ("cpu", "cuda"):
        model = load_language(checkpoint, device=device, dtype="float32")
        config = LanguageConfig(kv_tokens=512, max_step_tokens=32, max_running=2)
        engine, request = Engine(model, config), request_of(model)
        assert engine.reserve(request.key, 80) == 0
        engine.start(request)
        said.append(run(engine, request))
    assert said[0] == said[1]


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "eager"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_waits_for_ids_that_were_launched_before_and_for_nothing_else(
    family: str, dtype: str, *, graphs: bool, tmp_path: Path
) -> None:
    """Prompts in chunks, one of them with rows, and decodes, greedy, drawn and with penalties."""
    checkpoint = read_checkpoint(build(family, tmp_path / "tiny"))
    model = load_language(checkpoint, device="cuda", dtype=dtype)
    config = LanguageConfig(kv_tokens=2048, cuda_graphs=graphs, prefix_cache=False, **FEW)
    engine = Engine(model, config)
    drawn = SamplingParams(max_tokens=12, temperature=0.8, top_p=0.9, seed=3)

    def ask() -> None:
        start_all(engine)
        if dtype == "float32":  # that of the rows
            request = replace(request_of(model), key=RequestKey("rows", 0), sampling=drawn)
            assert engine.reserve(request.key, len(asked(model).token_ids()) + 12) == 0
            engine.start(request)

    ask()
    finish(engine)  # kernels are compiled
    ask()
    with waits() as who:
        while engine.has_work:
            assert not engine.step().failed
    assert "_Coming.read" in who and who <= WAITS
