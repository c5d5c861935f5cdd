"""What the engine refuses: requests that cannot run, KV that does not fit or is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from epd.config.sections import LanguageConfig
from epd.engine import Engine, MultiModalEmbeddingData, Role
from epd.errors import BadRequest, ConfigError, InternalError
from tests.engine.tiny import (
    HIDDEN,
    VOCAB,
    TinyLanguage,
    greedy,
    key,
    make_case,
    make_engine,
    make_request,
    start,
)

CASE = make_case(1, texts=(9,))
LONG = make_case(4, texts=(130,))
IMAGE = make_case(2, texts=(5, 7), grids=((4, 3),))


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine whose books must balance at the end, and be empty once all is released."""
    made = make_engine(max_step_tokens=32)
    yield made
    made.check()


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_token_ids_outside_the_vocabulary_are_refused(engine: Engine, token: int) -> None:
    request = make_request("r", CASE, greedy(4))
    request.token_ids[3] = token
    assert engine.reserve(request.key, 20) == 0
    with pytest.raises(BadRequest, match="vocabulary"):
        engine.start(request)


@pytest.mark.parametrize(
    ("reserve", "changes", "reason"),
    [
        (0, {}, "no reservation"),
        (16, {}, "no reservation for 26"),
        (40, {"positions": torch.zeros(3, 25)}, "positions of shape"),
        (40, {"positions": torch.zeros(2, 26)}, "positions of shape"),
        (40, {"role": Role.DECODE, "choices": ((0, 5),)}, "not all KV has landed"),
        (40, {"role": Role.DECODE}, "at least one choice"),
        (40, {"sampling": greedy(4, n=0)}, "at least one choice"),
        (40, {"first_index": 4}, "not below max_tokens"),
    ],
)
def test_requests_that_cannot_run_are_refused(
    engine: Engine, reserve: int, changes: dict[str, Any], reason: str
) -> None:
    request = replace(make_request("r", IMAGE, greedy(4)), **changes)
    if reserve:
        assert engine.reserve(request.key, reserve) == 0
    with pytest.raises(InternalError, match=reason):
        engine.start(request)
    assert not engine.has_work
    engine.release(request.key)
    assert engine.used_blocks == 0


def test_a_request_starts_once(engine: Engine) -> None:
    start(engine, make_request("r", CASE, greedy(4)))
    with pytest.raises(InternalError, match="twice"):
        engine.start(make_request("r", CASE, greedy(4)))


@pytest.mark.parametrize(
    ("width", "dtype", "reason"),
    [
        (HIDDEN + 1, "float32", "width 65"),
        (HIDDEN * 4, "float32", "this model takes 64"),
        (HIDDEN, "bfloat16", "bfloat16 for a model in float32"),
    ],
)
def test_rows_that_the_model_cannot_take_are_refused_at_start(
    engine: Engine, width: int, dtype: str, reason: str
) -> None:
    (item,) = IMAGE.prompt.items
    item = replace(item, layout=replace(item.layout, width=width, dtype=dtype))
    data = MultiModalEmbeddingData(replace(IMAGE.prompt, items=(item,)))
    request = replace(make_request("r", IMAGE, greedy(4)), embeddings=data)
    assert engine.reserve(request.key, 40) == 0
    with pytest.raises(InternalError, match=reason):
        engine.start(request)


def test_only_computed_kv_can_be_read(engine: Engine) -> None:
    """What stands in a reserved block before it is written belongs to somebody else."""
    assert engine.reserve(key("r"), 200) == 0
    for first, num in ((0, 1), (-1, 1), (0, 0)):
        with pytest.raises(InternalError, match="does not exist here"):
            engine.exchange.read(key("r"), first, num, 0, 3)
    engine.start(make_request("r", LONG, greedy(4)))
    engine.step()
    assert engine.exchange.read(key("r"), 30, 2, 1, 1).shape == (2, 1, 2, 2, 16)
    for first, num, layer, layers in ((31, 2, 0, 3), (-1, 2, 0, 3), (0, 1, 2, 2), (0, 1, 0, 0)):
        with pytest.raises(InternalError, match="exist"):
            engine.exchange.read(key("r"), first, num, layer, layers)


@pytest.mark.parametrize(
    ("first_token", "first_layer", "shape", "dtype"),
    [
        (30, 0, (2, 3, 3, 2, 16), torch.float32),
        (-1, 0, (2, 3, 3, 2, 16), torch.float32),
        (0, 1, (2, 3, 3, 2, 16), torch.float32),
        (0, 0, (2, 3, 3, 1, 16), torch.float32),
        (0, 0, (1, 3, 3, 2, 16), torch.float32),
        (0, 0, (2, 3, 3, 2), torch.float32),
        (0, 0, (2, 3, 3, 2, 16), torch.bfloat16),
    ],
)
def test_kv_that_does_not_fit_is_refused(
    engine: Engine,
    first_token: int,
    first_layer: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> None:
    assert engine.reserve(key("r"), 32) == 0
    with pytest.raises(InternalError):
        engine.exchange.write(key("r"), first_token, first_layer, torch.zeros(shape, dtype=dtype))


def test_kv_of_a_running_request_cannot_be_overwritten(engine: Engine) -> None:
    start(engine, make_request("r", CASE, greedy(4)))
    for name in ("r", "unknown"):
        with pytest.raises(InternalError):
            engine.exchange.write(key(name), 0, 0, torch.zeros(2, 3, 3, 2, 16))


def test_decode_starts_only_when_all_kv_has_landed(engine: Engine) -> None:
    """One layer of one token short is not all."""
    request = make_request("r", CASE, greedy(4))
    request = replace(request, role=Role.DECODE, choices=((0, 5),))
    assert engine.reserve(request.key, 20) == 0
    engine.exchange.write(request.key, 0, 0, torch.zeros(2, 2, 9, 2, 16))
    engine.exchange.write(request.key, 0, 2, torch.zeros(2, 1, 8, 2, 16))
    with pytest.raises(InternalError, match="landed"):
        engine.start(request)
    engine.exchange.write(request.key, 8, 2, torch.zeros(2, 1, 1, 2, 16))
    engine.start(request)


def test_a_cache_too_small_for_a_block_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="less than one block"):
        Engine(TinyLanguage(), LanguageConfig(kv_bytes=100))
    capacity = Engine(TinyLanguage(), LanguageConfig(kv_bytes=100 * 768)).num_tokens_capacity
    assert capacity == 96
