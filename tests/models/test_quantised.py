"""Checkpoints in fine-grained FP8 say exactly what their dequantised twins say."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from epd.config import load_config
from epd.errors import ConfigError
from epd.models import storage
from epd.models.language import load_language
from epd.models.leaves import weight_bytes
from epd.models.partial import load_part
from epd.models.sizes import num_weights
from epd.models.spec import Checkpoint, read_checkpoint
from epd.workers.memory import needs_of
from tests.checkpoints import build
from tests.fp8 import twins


@pytest.mark.parametrize("block", [128, 40])
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_omni_moe", "qwen3_vl_moe"])
def test_every_weight_is_that_of_the_dequantised_twin(
    family: str, block: int, tmp_path: Path
) -> None:
    """Bit for bit, so every token is; towers and language model, experts too."""
    small, plain = (read_checkpoint(path) for path in twins(build(family, tmp_path / "t"), block))
    assert small.dtype == plain.dtype
    modalities, adapter = small.spec.modalities, small.adapter()
    assert num_weights(small, modalities) == num_weights(plain, modalities)
    for keep in (adapter.language_parts(), adapter.tower_parts(modalities)):
        found, expected = (
            dict(load_part(one, keep, device="cpu", dtype="float32").named_parameters())
            for one in (small, plain)
        )
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            assert found[name].dtype == torch.float32
            assert torch.equal(found[name], weight), name


def counted(checkpoint: Checkpoint, device: str = "cuda", *settings: str) -> int:
    """Bytes of a decode worker's weights as a plan has them."""
    config = load_config(None, ("dtype=bfloat16", *settings))
    needs = needs_of("decode", config, checkpoint, device=device)
    return next(need.num_bytes for need in needs if need.name == "weights")


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_vl_moe"])
def test_memory_counts_what_weights_become(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte and their factors where they stay; those of experts, and all elsewhere, are plain."""
    monkeypatch.setattr(storage, "find_spec", lambda name: name)
    small, plain = (read_checkpoint(p) for p in twins(build(family, tmp_path / "t"), 128))
    parts = small.adapter().language_parts()
    model = load_part(small, parts, device="cpu", dtype="bfloat16", keep_blocks=True)
    assert counted(small) == weight_bytes(model) < counted(plain)
    for how in (("cpu",), ("cuda", "language.fused=false"), ("cuda", "dtype=float32")):
        assert counted(small, *how) == counted(plain, *how)
    monkeypatch.setattr(storage, "find_spec", lambda name: None)
    assert counted(small) == counted(plain)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"device": "cpu"}, "needs a CUDA device"),
        ({"dtype": "float32"}, "float32 is asked for"),
        ({"fused": False}, "language.fused is false"),
        ({"block": (64, 128)}, "blocks are 64 x 128"),
    ],
)
def test_why_weights_become_plain_has_one_reason(
    changes: dict[str, Any], why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "find_spec", lambda name: name)
    usual: dict[str, Any] = {"block": (128, 128), "device": "cuda:1", "dtype": "bfloat16"}
    found = storage.why_plain(**(usual | changes))
    assert found is None if why is None else why in str(found)


def test_a_cpu_says_why_it_has_plain_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small, _ = (read_checkpoint(p) for p in twins(build("qwen3_vl", tmp_path / "t"), 128))
    with caplog.at_level(logging.INFO):
        load_language(small, device="cpu", dtype="float32")
    (said,) = [record.message for record in caplog.records if "fp8" in record.message]
    assert said.startswith("weights in fp8 are loaded as float32: the kernel needs a CUDA device")


def test_factors_of_other_blocks_than_said_are_refused(tmp_path: Path) -> None:
    small, _ = twins(build("qwen3_vl", tmp_path / "t"), 64)
    file = small / "config.json"
    file.write_text(file.read_text().replace("[64, 64]", "[32, 32]"))
    checkpoint = read_checkpoint(small)
    with pytest.raises(ConfigError, match=r"not one for each block of 32 x 32"):
        load_part(checkpoint, checkpoint.adapter().language_parts(), device="cpu", dtype="float32")


def test_weights_in_fp8_without_factors_are_refused(tmp_path: Path) -> None:
    small, _ = twins(build("qwen3_vl", tmp_path / "t"), 128)
    for file in small.glob("*.safetensors"):
        kept = {
            n: w for n, w in load_file(file).items() if not n.endswith("q_proj.weight_scale_inv")
        }
        save_file(kept, file, {"format": "pt"})
    checkpoint = read_checkpoint(small)
    with pytest.raises(ConfigError, match=r"q_proj.weight is in fp8 and has no factors"):
        load_part(checkpoint, checkpoint.adapter().language_parts(), device="cpu", dtype="float32")
