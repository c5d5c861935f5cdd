"""Ranks that have parts of weights in FP8 say what one says with the same weights written out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from epd.attention import kernels
from epd.config import load_config
from epd.models import storage
from epd.models.block_experts import BlockExperts
from epd.models.block_linear import BlockLinear
from epd.models.language import LanguageModel
from epd.models.leaves import weight_bytes
from epd.models.partial import load_part
from epd.models.random_checkpoint import Sizes, build_random_checkpoint
from epd.models.shards import Shards
from epd.models.spec import read_checkpoint
from epd.workers.memory import needs_of
from tests.checkpoints import qwen3_vl_moe
from tests.engine.processes import load, two_processes
from tests.engine.test_ranks import MAX_TOKENS, answer
from tests.fp8 import twins
from tests.models.test_shards import Alone


def dense(path: Path, *, intermediate: int) -> Path:
    """Two layers, in which only the products of the second half may have odd sizes."""
    sizes = Sizes(layers=2, deepstack_levels=1, head_dim=128, intermediate=intermediate)
    return build_random_checkpoint(path, family="qwen3_vl", sizes=sizes)


DENSE, UNEVEN = (partial(dense, intermediate=size) for size in (512, 384))
EXPERTS = partial(qwen3_vl_moe.build, inside=256)

ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
KEPT: list[tuple[Callable[[Path], Path], set[str]]] = [
    (DENSE, ALL),
    (UNEVEN, ALL - {"gate_proj", "up_proj", "down_proj"}),  # 192 values for each rank
    (EXPERTS, {"experts"}),  # whose heads are 16 wide
]


@pytest.mark.parametrize("build", [DENSE, UNEVEN, EXPERTS], ids=["dense", "uneven", "experts"])
def test_two_ranks_say_what_one_says(build: Callable[[Path], Path], tmp_path: Path) -> None:
    if not kernels.interpreted():
        pytest.skip("kernels are compiled here")
    kept, plain = (read_checkpoint(path) for path in twins(build(tmp_path / "t"), 128))
    expected = answer(load(plain, fused=False))
    assert len(expected) == MAX_TOKENS
    with two_processes(kept, tmp_path / "meeting", fused=True, keep_blocks=True) as model:
        assert answer(model) == expected
        part = model.part
        assert isinstance(part, LanguageModel)
        small = [w for name, w in part._decoder.named_parameters() if name.endswith("scale_inv")]
        assert small
        for factors in small:  # negative control
            factors.data.mul_(1.5)
        assert answer(model) != expected


@pytest.mark.parametrize(("build", "names"), KEPT, ids=["dense", "uneven", "experts"])
def test_a_rank_holds_and_a_plan_counts_a_byte_for_each_value(
    build: Callable[[Path], Path],
    names: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Real weights and random ones; what becomes plain is named once in the log."""
    monkeypatch.setattr(storage, "find_spec", lambda name: name)
    path, _ = twins(build(tmp_path / "t"), 128)
    config = load_config(None, ("dtype=bfloat16", "placement.decode.tp=2"))
    for dummy in (False, True):
        for rank in (0, 1):
            checkpoint = read_checkpoint(path, dummy=dummy)
            adapter = checkpoint.adapter()
            shards = Shards(adapter, Alone(rank, 2))
            caplog.clear()
            with caplog.at_level(logging.INFO):
                model = load_part(
                    checkpoint,
                    adapter.language_parts(),
                    device="cpu",
                    dtype="bfloat16",
                    shards=shards,
                    keep_blocks=True,
                )
            shards.install(model)
            found = {
                name.removesuffix(".part").rpartition(".")[2]
                for name, m in model.named_modules()
                if isinstance(m, BlockLinear | BlockExperts)
            }
            assert found == names
            told = [record.message for record in caplog.records if "become plain" in record.message]
            assert len(set(told)) == len(told) <= 2 * len(ALL)
            assert bool(told) is (names != ALL)
            needs = needs_of("decode", config, checkpoint, device="cuda", rank=rank)
            counted = next(need.num_bytes for need in needs if need.name == "weights")
            assert counted == weight_bytes(model)
