"""The engine against transformers' generate(), token for token in fp32."""

from __future__ import annotations

import pytest

from tests.engine.tiny import finish, generate, greedy, make_case, make_engine, make_request, start

CASES = [
    make_case(1, texts=(9,)),
    make_case(2, texts=(5, 7), grids=((4, 3),)),
    make_case(3, texts=(40, 1, 30), grids=((2, 2), (6, 7))),
    make_case(4, texts=(130,)),
    make_case(5, texts=(2, 300), grids=((9, 5),)),
]


@pytest.mark.parametrize("step_tokens", [16, 24, 64, 512])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_packed_requests_equal_generate(step_tokens: int, penalty: float) -> None:
    """Five prompts at once: chunks of some share a forward with decodes of others."""
    engine = make_engine(max_step_tokens=step_tokens)
    for number, case in enumerate(CASES):
        start(engine, make_request(f"r{number}", case, greedy(20, repetition_penalty=penalty)))
    tokens = finish(engine)
    for number, case in enumerate(CASES):
        assert tokens[f"r{number}"] == generate(case, 20, repetition_penalty=penalty), number
    assert engine.used_blocks == 0
