"""The arithmetic, against numbers that were worked out by hand."""

from __future__ import annotations

import pytest

from epd.sizing import formulas
from epd.sizing.formulas import Blocks, Language, Tower

TOWER = Tower(
    layers=2,
    hidden=10,
    intermediate=20,
    mlp_products=3,
    input_values=6,
    merge=4,
    full_layers=1,
    window=4,
)
MODEL = Language(
    layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, intermediate=16, vocabulary=100
)
SPARSE = Language(
    layers=3,
    hidden=8,
    heads=2,
    kv_heads=1,
    head_dim=4,
    intermediate=16,
    vocabulary=100,
    experts=4,
    experts_per_token=2,
    dense_layers=1,
    dense_intermediate=32,
)


def test_a_tower_of_one_frame() -> None:
    """8 patches: 2*8*2*(4*100 + 3*10*20) = 32,000 dense; 1 full layer 4*10*64 = 2,560; 1 windowed
    4*10*8*4 = 1,280; patches 2*8*6*10 = 960; 2 rows merged 2*2*(40*40 + 40*5) = 7,200."""
    assert formulas.tower_flops(TOWER, 5, 1, 8) == 32_000 + 2_560 + 1_280 + 960 + 7_200


def test_frames_do_not_attend_to_each_other() -> None:
    assert formulas.tower_flops(TOWER, 5, 3, 8) == 3 * formulas.tower_flops(TOWER, 5, 1, 8)


def test_an_encoder_of_sound() -> None:
    """4 positions, 2 rows, 6 bands: convolutions 2*8*3*6*10 + 2*4*3*100 = 5,280; layers
    2*4*2*(400 + 600) = 16,000; attention 2*4*10*16 = 1,280; projection 2*2*10*5 = 200."""
    assert formulas.sound_flops(TOWER, 5, 4, 2) == 5_280 + 16_000 + 1_280 + 200


def test_prefill() -> None:
    """A layer has 2*8*4*(2+1) = 192 attention and 3*8*16 = 384 other weights: 1,152 in all.
    10 tokens: 2*1,152*10 = 23,040; attention 2*2*100*8 = 3,200; logits 2*100*8 = 1,600."""
    assert MODEL.weights(1) == 1_152
    assert formulas.prefill_flops(MODEL, 10) == 23_040 + 3_200 + 1_600


def test_experts_and_the_layers_without() -> None:
    """3 layers of attention 3*192 = 576; 2 sparse ones 2*(2 experts * 384 + 8*4) = 1,600; a dense
    one 3*8*32 = 768."""
    assert SPARSE.weights(2) == 576 + 1_600 + 768


def test_a_large_batch_reads_all_experts_and_a_small_one_only_its_own() -> None:
    assert formulas.experts_used(SPARSE, 1) == 2
    assert formulas.experts_used(SPARSE, 2) == 3
    assert formulas.experts_used(SPARSE, 1000) == pytest.approx(4)
    assert formulas.experts_used(MODEL, 7) == 1


def test_bytes() -> None:
    """KV of a token 2*2*1*4*2 = 32; a row of 5 values with three slices more 5*2*4 = 40; a step of
    3 answers of 10 tokens 2*(1,152 + 800) + 3*10*32 = 4,864."""
    assert formulas.kv_bytes(MODEL, 2) == 32
    assert formulas.row_bytes(5, 3, 2) == 40
    assert formulas.decode_step_bytes(MODEL, 3, 10, 2) == 4_864


def blocks(side: int, ranks: int) -> Blocks:
    return Blocks(side=side, value_bytes=1.25, ranks=ranks)


def test_weights_in_blocks_are_read_as_fewer_bytes() -> None:
    """A step as above 1.25*1,152 + 2*800 + 960 = 4,000. Of experts 2*(2 experts * 384) = 1,536."""
    assert MODEL.in_blocks(blocks(4, 1), 1) == MODEL.weights(1) == 1_152
    assert formulas.decode_step_bytes(MODEL, 3, 10, 2, blocks(4, 1)) == 4_000
    assert SPARSE.in_blocks(blocks(4, 1), 2) == 576 + 1_536 + 768


def test_parts_that_are_no_whole_blocks_are_plain() -> None:
    """q and o are divided where they are 8 wide, k and v where 4, experts at 16, the dense at 32.

    In 3 layers q and o have 3*2*8*8 = 384 values. Without ranks only experts must end where blocks
    do, for gates lie beside what they gate.
    """
    assert SPARSE.in_blocks(blocks(4, 2), 2) == 384 + 1_536 + 768
    assert SPARSE.in_blocks(blocks(4, 4), 2) == 1_536 + 768
    assert SPARSE.in_blocks(blocks(8, 4), 2) == 768
    assert SPARSE.in_blocks(blocks(32, 1), 2) == 576 + 768
    assert SPARSE.in_blocks(blocks(64, 2), 2) == 0
