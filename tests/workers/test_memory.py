"""What each role needs, from configuration and checkpoint alone."""

from __future__ import annotations

from typing import Any

import pytest

from epd.config import Config, load_config
from epd.models.spec import Checkpoint, read_checkpoint
from epd.observe.machine import compiles, compiles_many_rows, widens_bfloat16
from epd.observe.memory import Need, Where, total
from epd.workers.memory import needs_of
from tests.checkpoints import build

MIB = 1 << 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return read_checkpoint(build("qwen2_5_vl", tmp_path_factory.mktemp("checkpoints") / "tiny"))


def named(
    role: str, checkpoint: Checkpoint, *settings: str, device: str = "cpu"
) -> dict[str, Need]:
    needs = needs_of(role, load_config(None, settings), checkpoint, device=device)
    assert len({need.name for need in needs}) == len(needs)
    return {need.name: need for need in needs}


def test_each_role_needs_its_own_parts_alone(checkpoint: Checkpoint) -> None:
    parts = {"tower weights", "weights", "KV cache", "preempted KV", "rows", "rows store", "arena"}
    found = {
        role: parts & set(named(role, checkpoint))
        for role in ("gateway", "encode", "prefill", "decode", "fused", "engine")
    }
    assert found == {
        "gateway": set(),
        "encode": {"tower weights", "rows store", "arena"},
        "prefill": {"weights", "KV cache", "rows", "arena"},
        "decode": {"weights", "KV cache", "preempted KV"},
        "fused": {"weights", "KV cache", "preempted KV", "rows"},
        "engine": parts - {"arena"},
    }


def test_kv_counts_what_the_setting_in_force_says_and_names_it(checkpoint: Checkpoint) -> None:
    by_bytes = named("decode", checkpoint, "language.kv_bytes=5000000")["KV cache"]
    assert (by_bytes.num_bytes, by_bytes.settings) == (5_000_000, ("language.kv_bytes",))
    by_tokens = named("decode", checkpoint, "language.kv_tokens=1000")["KV cache"]
    per_token = 2 * 4 * 2 * 16 * 4  # K and V, layers, heads, values, float32
    assert (by_tokens.num_bytes, by_tokens.settings) == (1000 * per_token, ("language.kv_tokens",))


def test_half_the_precision_is_half_the_weights(checkpoint: Checkpoint) -> None:
    whole = named("decode", checkpoint)["weights"].num_bytes
    half = named("decode", checkpoint, "dtype=bfloat16", device="cuda")["weights"].num_bytes
    assert half * 2 == whole


def test_few_rows_have_a_copy_of_the_weights_of_their_own_where_that_is_faster(
    checkpoint: Checkpoint,
) -> None:
    """Beside a float32 one, or where compiled layers take few rows alone."""
    whole = named("decode", checkpoint)["weights"].num_bytes
    half = named("decode", checkpoint, "dtype=bfloat16")["weights"].num_bytes
    plain = named("decode", checkpoint, "dtype=bfloat16", "language.compiled=false")["weights"]
    if widens_bfloat16():
        assert half * 2 == plain.num_bytes * 2 == 3 * whole
    else:
        two = compiles() and not compiles_many_rows()
        assert half == (whole if two else whole // 2) and plain.num_bytes * 2 == whole


def test_on_a_gpu_what_the_model_computes_with_is_there_and_the_rest_is_not(
    checkpoint: Checkpoint,
) -> None:
    found = named("engine", checkpoint, device="cuda")
    on_device = {name for name, need in found.items() if need.where is Where.DEVICE}
    assert on_device >= {"weights", "tower weights", "KV cache", "rows store", "CUDA context"}
    assert not on_device & {"preempted KV", "interpreter", "rows", "files"}


def test_rows_that_a_gpu_reads_where_the_encoder_has_them_are_copied_there(
    checkpoint: Checkpoint,
) -> None:
    """They are counted on both sides, unless no GPU memory is lent."""
    for role in ("prefill", "fused", "engine"):
        found = named(role, checkpoint, "language.rows_bytes=5000", device="cuda")
        assert found["rows"].where is Where.HOST and found["rows"].num_bytes == 5000
        there = found["rows on the GPU"]
        assert there.where is Where.DEVICE and there.num_bytes == 5000
    for role, device, setting in (
        ("decode", "cuda", "wire.device_bytes=1"),
        ("prefill", "cpu", "wire.device_bytes=1"),
        ("prefill", "cuda", "wire.device_bytes=0"),
    ):
        assert "rows on the GPU" not in named(role, checkpoint, setting, device=device)


def test_an_engine_lends_itself_memory_of_its_gpu_alone(checkpoint: Checkpoint) -> None:
    found = named("engine", checkpoint, "wire.device_bytes=5000", device="cuda")
    assert found["device arena"].num_bytes == 5000 and "arena" not in found
    assert not {"device arena", "arena"} & set(named("engine", checkpoint))


def test_every_setting_that_is_named_exists_and_lowers_its_need(checkpoint: Checkpoint) -> None:
    """Except dtype, of which a checkpoint's own may be the smallest."""
    for role in ("gateway", "encode", "prefill", "decode", "engine"):
        for name, need in named(role, checkpoint).items():
            for setting in set(need.settings) - {"dtype"}:
                lowered = named(role, checkpoint, f"{setting}={halved(setting)}")[name]
                assert lowered.num_bytes < need.num_bytes, (role, name, setting)


def halved(setting: str) -> int:
    value: Any = Config()
    unset = {  # these depend on the device
        "encode.max_batch_patches": value.encode.batch_patches("cuda"),
        "language.max_step_tokens": value.language.step_tokens("cpu"),
        "language.kv_bytes": value.language.kv_capacity,
    }
    if setting in unset:
        return int(unset[setting] // 2)
    for step in setting.split("."):
        value = getattr(value, step)
    assert isinstance(value, int)
    return value // 2


def test_no_arena_is_needed_without_shared_memory(checkpoint: Checkpoint) -> None:
    needs = list(named("prefill", checkpoint, "wire.shm_bytes=0").values())
    assert total(needs, Where.SHARED) == 0


def test_ranks_divide_weights_and_kv_and_rank_0_has_the_rest(checkpoint: Checkpoint) -> None:
    alone = named("decode", checkpoint, device="cuda")
    config = load_config(None, ["placement.decode.tp=2"])
    first, second = (
        {need.name: need.num_bytes for need in found}
        for found in (
            needs_of("decode", config, checkpoint, device="cuda", rank=rank) for rank in (0, 1)
        )
    )
    assert first["KV cache"] == second["KV cache"] == alone["KV cache"].num_bytes // 2
    assert second["weights"] < first["weights"] < alone["weights"].num_bytes
    assert first["weights"] + second["weights"] >= alone["weights"].num_bytes
    assert {"sampling", "grammars"} <= first.keys() - second.keys()
    assert second["queues"] == first["queues"]  # each hands over by itself
