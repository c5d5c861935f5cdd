"""Published models at 1080p: the sums that were worked out by hand, from config.json alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epd.cli.main import main
from epd.errors import ConfigError, UnsupportedModel
from epd.sizing import Machine, Picture, Sound, Workload, estimate, read_shapes
from tests.sizing.configs import (
    IN_FP8,
    LLAVA,
    QWEN2_5_VL_7B,
    QWEN2_AUDIO_7B,
    QWEN3_VL_8B,
    QWEN3_VL_30B_A3B,
    folder,
)

H100 = Machine(
    flops=990e12,
    memory_rate=3.35e12,
    link_rate=25e9,
    encode_share=0.45,
    prefill_share=0.55,
    busy=0.7,
)
ONE = Workload(items=(Picture(1920, 1080),), text_tokens=64, output_tokens=150, rate=4.0, batch=32)


@pytest.mark.parametrize(
    ("config", "items", "tokens", "tflop", "mbytes", "ms", "decode_ms"),
    [
        (
            QWEN2_5_VL_7B,
            (Picture(1920, 1080),),
            2755,
            (16.3, 37.5),
            (19.3, 158),
            (36.6, 68.8),
            27.05,
        ),
        (QWEN3_VL_8B, (Picture(1920, 1080),), 2104, (15.7, 30.5), (66.8, 310), (35.2, 56.1), 35.57),
        (QWEN2_AUDIO_7B, (Sound(30),), 814, (2.28, 10.7), (6.1, 427), (5.1, 19.7), 40.8),
    ],
    ids=["Qwen2.5-VL-7B", "Qwen3-VL-8B", "Qwen2-Audio-7B"],
)
def test_published_models(
    config: dict[str, Any],
    items: tuple[Any, ...],
    tokens: int,
    tflop: tuple[float, float],
    mbytes: tuple[float, float],
    ms: tuple[float, float],
    decode_ms: float,
    tmp_path: Path,
) -> None:
    workload = Workload(items=items, text_tokens=64, output_tokens=150, rate=4.0, batch=32)
    found = estimate(read_shapes(folder(tmp_path, config)), workload, H100)
    encode, prefill, decode = found.stages
    assert found.prompt_tokens == tokens
    assert (encode.flops / 1e12, prefill.flops / 1e12) == pytest.approx(tflop, rel=0.01)
    assert (encode.sent_bytes / 1e6, prefill.sent_bytes / 1e6) == pytest.approx(mbytes, rel=0.01)
    assert (encode.seconds * 1e3, prefill.seconds * 1e3) == pytest.approx(ms, rel=0.01)
    assert decode.seconds * 1e3 == pytest.approx(decode_ms, rel=0.01)


def test_workers_follow_from_the_rate(tmp_path: Path) -> None:
    """Qwen2.5-VL at 40/s: 1.46 encoders, 2.75 for prefill and 1.08 for decode, at most 70% busy."""
    shapes = read_shapes(folder(tmp_path, QWEN2_5_VL_7B))
    busy = Workload(items=ONE.items, text_tokens=64, output_tokens=150, rate=40.0, batch=32)
    found = estimate(shapes, busy, H100)
    assert [round(stage.load, 2) for stage in found.stages] == [1.46, 2.75, 1.08]
    assert found.topology == "3E4P2D"
    assert found.ratio == pytest.approx((1.35, 2.54, 1.0), rel=0.01)
    assert found.stages[1].link_gbits == pytest.approx(40 * 158e6 * 8 / 1e9, rel=0.01)


def test_a_step_with_weights_in_fp8_is_shorter(tmp_path: Path) -> None:
    """Qwen3-VL-8B: 6.95 G of 7.57 G values are products: 8.19 GB and not 15.14, beside the KV."""
    small = {**QWEN3_VL_8B, **IN_FP8}
    found, plain = (
        estimate(read_shapes(folder(tmp_path / name, config)), ONE, H100)
        for name, config in (("small", small), ("plain", QWEN3_VL_8B))
    )
    assert any("fp8" in each for each in found.assumed)
    saved = (plain.step_seconds - found.step_seconds) * H100.memory_rate
    assert saved == pytest.approx(15.14e9 - 8.19e9, rel=0.01)


def test_experts_in_fp8_make_a_step_shorter_where_ranks_have_whole_blocks(tmp_path: Path) -> None:
    """Qwen3-VL-30B-A3B, 768 = 6 * 128 wide: at tp 2 and not at 4. There attention is what is left:
    18.9 M values in a layer, of which k and v, 512 wide, are parts of whole blocks."""

    def read(name: str, config: dict[str, Any], tp: int) -> tuple[float, tuple[str, ...]]:
        shapes = read_shapes(folder(tmp_path / name, config), tp)
        found = estimate(shapes, replace(ONE, batch=1000), H100)
        return found.step_seconds * H100.memory_rate, found.assumed

    plain, _ = read("plain", QWEN3_VL_30B_A3B, 4)
    experts, attention = 48 * 128 * 3 * 2048 * 768, 48 * 2 * 2048 * 128 * (32 + 4)
    for tp, kept in ((1, experts + attention), (2, experts + attention), (4, attention)):
        small, assumed = read("small", {**QWEN3_VL_30B_A3B, **IN_FP8}, tp)
        assert plain - small == pytest.approx(kept * (1 - 4 / 128**2))
        told = "but those of experts are plain: 768 wide, no multiple of 128 x 4"
        assert (told in assumed) is (tp == 4)
    with pytest.raises(ConfigError, match=r"tp is 3: .* has 4 KV heads"):
        read("small", QWEN3_VL_30B_A3B, 3)


def test_text_alone_needs_no_encoder_work(tmp_path: Path) -> None:
    text = Workload(items=(), text_tokens=64, output_tokens=150, rate=4.0, batch=32)
    found = estimate(read_shapes(folder(tmp_path, QWEN2_5_VL_7B)), text, H100)
    assert (found.stages[0].flops, found.stages[0].sent_bytes, found.rows) == (0, 0, 0)


def test_items_that_the_model_does_not_take_and_unknown_towers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pictures"):
        estimate(read_shapes(folder(tmp_path / "a", QWEN2_AUDIO_7B)), ONE, H100)
    with pytest.raises(UnsupportedModel, match="no formulas for the towers of llava"):
        read_shapes(folder(tmp_path / "b", LLAVA))


def test_the_processors_limit_counts_where_there_is_one(tmp_path: Path) -> None:
    there = folder(tmp_path, QWEN2_5_VL_7B)
    (there / "preprocessor_config.json").write_text('{"min_pixels": 3136, "max_pixels": 200704}')
    shapes = read_shapes(there)
    assert shapes.assumed == ()
    assert estimate(shapes, ONE, H100).rows <= 200704 // 784


def test_the_command_prints_a_table_and_the_same_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(folder(tmp_path / "Qwen2.5-VL-7B", QWEN2_5_VL_7B))
    assert main(["size", model, "--image", "1080p", "--rate", "4"]) == 0
    text = capsys.readouterr().out
    assert "Qwen2.5-VL-7B: 1 picture and 64 tokens of text = 2755 tokens" in text
    assert "workers: 1E1P1D" in text and "assumed: pictures keep their pixels" in text
    assert main(["size", model, "--image", "1080p", "--rate", "4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["topology"], said["prompt_tokens"]) == ("1E1P1D", 2755)


@pytest.mark.parametrize("flag", ["--rate=0", "--tp=0", "--busy=1.5", "--text=-1", "--audio=0"])
def test_numbers_without_a_sense_are_refused_by_name(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["size", str(folder(tmp_path, QWEN2_5_VL_7B)), flag]) == 2
    assert flag.partition("=")[0] in capsys.readouterr().err
