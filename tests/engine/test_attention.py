"""The engine on another attention backend than the CPU's own."""

from __future__ import annotations

import pytest

from epd.attention import kernels
from epd.config.sections import LanguageConfig
from epd.engine import Engine
from epd.errors import ConfigError
from epd.types import SamplingParams
from tests.engine.tiny import TinyLanguage, finish, generate, make_case, make_request, start

CASES = [make_case(1, texts=[3, 4], grids=[(2, 2)]), make_case(2, texts=[5])]


def test_the_triton_backend_answers_as_generate() -> None:
    """Chunks, decodes and both in one step."""
    if not kernels.interpreted():
        pytest.skip("kernels are compiled here")
    config = LanguageConfig(kv_tokens=256, max_step_tokens=8, attention="triton")
    engine = Engine(TinyLanguage(), config)
    assert engine.attention == "triton"
    for number, case in enumerate(CASES):
        start(engine, make_request(f"r{number}", case, SamplingParams(max_tokens=4)))
    tokens = finish(engine)
    assert [tokens[f"r{n}"] for n in range(len(CASES))] == [generate(c, 4) for c in CASES]


def test_a_backend_that_cannot_do_it_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="language.attention is flash"):
        Engine(TinyLanguage(), LanguageConfig(kv_tokens=256, attention="flash"))
