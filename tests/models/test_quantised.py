"""Checkpoints in fine-grained FP8 say exactly what their dequantised twins say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from epd.config import Config
from epd.errors import ConfigError
from epd.models.partial import load_part
from epd.models.sizes import num_weights
from epd.models.spec import read_checkpoint
from epd.workers.memory import needs_of
from tests.checkpoints import build

LARGEST = torch.finfo(torch.float8_e4m3fn).max
TOWERS = ("visual", "audio_tower")


def spread(factors: torch.Tensor, block: int, shape: torch.Size) -> torch.Tensor:
    """Each factor at all places of its block, of which the last may be cut off."""
    for dim in (-2, -1):
        factors = factors.repeat_interleave(block, dim).narrow(dim, 0, shape[dim])
    return factors


def quantised(weight: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, or one of each expert, in blocks, and their factors."""
    rows, columns = weight.shape[-2:]
    padding = (0, -columns % block, 0, -rows % block)
    blocks = torch.nn.functional.pad(weight.float(), padding).unfold(-2, block, block)
    factors = blocks.unfold(-2, block, block).abs().amax((-2, -1)) / LARGEST
    small = weight.float() / spread(factors, block, weight.shape)
    return small.to(torch.float8_e4m3fn), factors


def dequantised(weight: torch.Tensor, factors: torch.Tensor, block: int) -> torch.Tensor:
    return weight.float() * spread(factors, block, weight.shape)


def twins(path: Path, block: int) -> tuple[Path, Path]:
    """The checkpoint in FP8, and with the same weights written out."""
    small, plain = (path.parent / name for name in ("small", "plain"))
    shutil.copytree(path, small)
    shutil.copytree(path, plain)
    for file in path.glob("*.safetensors"):
        weights = load_file(file)
        written, out = {}, {}
        for name, weight in weights.items():
            written[name] = out[name] = weight
            ours = name.endswith(("proj.weight", "experts.gate_up_proj", "experts.down_proj"))
            if ours and weight.ndim > 1 and not set(TOWERS) & set(name.split(".")):
                written[name], factors = quantised(weight, block)
                written[f"{name}_scale_inv"] = factors
                out[name] = dequantised(written[name], factors, block).to(weight.dtype)
        save_file(written, small / file.name, {"format": "pt"})
        save_file(out, plain / file.name, {"format": "pt"})
    config = json.loads((small / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [block, block],
        "modules_to_not_convert": ["lm_head", *TOWERS],
    }
    (small / "config.json").write_text(json.dumps(config))
    return small, plain


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


def test_memory_counts_what_weights_become(tmp_path: Path) -> None:
    small, plain = (read_checkpoint(p) for p in twins(build("qwen3_vl", tmp_path / "t"), 128))
    for device in ("cpu", "cuda"):
        assert needs_of("decode", Config(), small, device=device) == needs_of(
            "decode", Config(), plain, device=device
        )


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
