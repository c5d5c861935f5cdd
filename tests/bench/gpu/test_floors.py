"""Floors against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.gpu.floors import (
    Rates,
    decode_bytes,
    kv_bytes,
    prefill_flops,
    row_bytes,
    tower_flops,
    ttft_floor_s,
    window_pairs,
)
from bench.gpu.shape import REAL, TINY, Shape, Text, Tower, read_shape

# q and o: 2 * 8 * 8, k and v: 2 * 8 * 4, gate, up and down: 3 * 8 * 16 = 576 values in a layer.
TEXT = Text(layers=3, hidden=8, intermediate=16, heads=2, kv_heads=1, head_dim=4, vocab=100)
# q, k, v and o: 4 * 4 * 4, the MLP: 2 * 4 * 8 = 128; a merger: 16 * (16 + 8) = 384; pixels: 96.
TOWER = Tower(
    depth=2,
    hidden=4,
    intermediate=8,
    mlp_matrices=2,
    out_hidden=8,
    patch=2,
    temporal_patch=2,
    merge=2,
    mergers=2,
    window=None,
    full_layers=2,
)


def shape() -> Shape:
    return Shape(
        name="by hand",
        family="qwen3_vl",
        config={"dtype": "bfloat16"},
        max_image_tokens=256,
        text=TEXT,
        tower=TOWER,
    )


def test_a_decode_step_reads_weights_once_and_the_kv_of_every_request() -> None:
    found = decode_bytes(shape(), batch=5, context=7)
    assert found.weights == 2 * (3 * 576 + 800)
    # K and V of one token: 2 * 3 layers * 1 head * 4 values = 24.
    assert (found.kv_read, found.kv_written) == (2 * 5 * 7 * 24, 2 * 5 * 24)
    assert (found.embeddings, found.logits) == (2 * 5 * 8, 2 * 2 * 5 * 100)
    assert found.total == 5056 + 1680 + 240 + 80 + 2000


def test_prefill_counts_products_pairs_and_one_row_of_logits() -> None:
    # Of 3 tokens behind 2: 3 * 2 + (1 + 2 + 3) = 12 pairs, 4 * 12 * 2 heads * 4 * 3 layers.
    assert prefill_flops(TEXT, 3, before=2) == 2 * 3 * 3 * 576 + 1152 + 1600
    whole = prefill_flops(TEXT, 5)
    assert whole == prefill_flops(TEXT, 2) + prefill_flops(TEXT, 3, before=2) - 1600


def test_a_tower_counts_patches_its_mergers_and_pairs_within_a_picture() -> None:
    # 4 x 6 patches, 6 rows: products 2 * 24 * (96 + 2 * 128), mergers 2 * 6 * 2 * 384,
    # attention 4 * 2 layers * 24^2 pairs * 4.
    one = 2 * 24 * 352 + 9216 + 18432
    assert tower_flops(TOWER, [(4, 6)]) == one
    assert tower_flops(TOWER, [(4, 6), (4, 6)]) == 2 * one


def test_windows_at_the_edges_are_cut() -> None:
    # 5 x 3 in windows of 2: heights 2, 2, 1 and widths 2, 1.
    assert window_pairs(5, 3, 2) == sum((h * w) ** 2 for h in (2, 2, 1) for w in (2, 1))
    windowed = replace(TOWER, window=2, full_layers=1)
    saved = 4 * 4 * ((5 * 3) ** 2 - window_pairs(5, 3, 2))
    assert tower_flops(TOWER, [(5, 3)]) - tower_flops(windowed, [(5, 3)]) == saved


def test_the_floor_of_a_first_token_is_a_sum_and_reading_weights_bounds_short_prompts() -> None:
    made, grids = shape(), [(4, 6)]
    rates = Rates(bytes_per_s=1e3, flops_per_s=1e6)
    towers = tower_flops(TOWER, grids) / 1e6
    # 6 rows of (1 + 1 deeper) * 8 values, written and read.
    assert row_bytes(made, grids) == 2 * 6 * 16
    assert ttft_floor_s(made, grids, 1, rates) == pytest.approx(towers + 0.384 + 5.056)
    slow = Rates(bytes_per_s=1e9, flops_per_s=1e3)
    least = (tower_flops(TOWER, grids) + prefill_flops(TEXT, 9)) / 1e3
    assert ttft_floor_s(made, grids, 9, slow) == pytest.approx(least)


@pytest.mark.parametrize(
    ("name", "billions", "layer_millions", "kv"),
    [("qwen3_vl_8b", 8.77, 192.9, 147_456), ("qwen2_5_vl_7b", 8.29, 233.0, 57_344)],
)
def test_the_shapes_of_published_models_have_the_size_that_is_published(
    name: str, billions: float, layer_millions: float, kv: int
) -> None:
    found = read_shape(name)
    text, tower = found.text, found.tower
    values = text.layers * text.layer_weights + 2 * text.head_weights
    values += tower.depth * tower.layer_weights + tower.mergers * tower.merger_weights
    assert values / 1e9 == pytest.approx(billions, rel=0.005)
    assert text.layer_weights / 1e6 == pytest.approx(layer_millions, rel=0.001)
    assert kv_bytes(found, 1) == kv


def test_a_full_hd_picture_is_as_many_patches_as_the_processors_make_of_it() -> None:
    # 1920 / 32 = 60 and 1080 / 32 = 33.75 rows; 1920 / 28 = 68.6 and 1080 / 28 = 38.6.
    assert read_shape("qwen3_vl_8b").grid(1920, 1080) == (68, 120)
    assert read_shape("qwen2_5_vl_7b").grid(1920, 1080) == (78, 138)


def test_what_a_dry_run_takes_has_every_part_of_the_real_one() -> None:
    for real, tiny in zip(REAL, TINY, strict=True):
        one, other = read_shape(real), read_shape(tiny)
        assert one.family == other.family
        for section in ("text_config", "vision_config"):
            assert one.config[section].keys() == other.config[section].keys()
