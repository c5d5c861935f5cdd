"""The parts that ranks have of a model make the whole, whatever its plan cuts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from epd.errors import ConfigError, UnsupportedModel
from epd.models.partial import load_part
from epd.models.shards import Cut, Shards
from epd.models.spec import Checkpoint, read_checkpoint
from tests.checkpoints import build


class Alone:
    """A rank whose others never come."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def add_up(self, values: torch.Tensor) -> None: ...

    def share(self, values: torch.Tensor) -> None: ...

    def gather(self, part: torch.Tensor) -> list[torch.Tensor]:
        return []

    def scatter(self, parts: Sequence[torch.Tensor], into: torch.Tensor) -> None: ...


def loaded(checkpoint: Checkpoint, shards: Shards | None = None) -> Any:
    keep = checkpoint.adapter().language_parts()
    return load_part(checkpoint, keep, device="cpu", dtype="float32", shards=shards)


def joined(parts: Sequence[torch.Tensor], cut: Cut | None) -> torch.Tensor:
    if cut is None:
        assert torch.equal(*parts)
        return parts[0]
    halves = [part.chunk(cut.packed, cut.dim) for part in parts]
    return torch.cat([torch.cat(packed, cut.dim) for packed in zip(*halves, strict=True)], cut.dim)


@pytest.mark.parametrize("dummy", [False, True])
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_omni_moe"])
def test_parts_of_every_weight_make_the_whole(family: str, dummy: bool, tmp_path: Path) -> None:
    """Random weights too, though no rank keeps a whole one."""
    checkpoint = read_checkpoint(build(family, tmp_path / "t"), dummy=dummy)
    whole = loaded(checkpoint)
    shards = [Shards(checkpoint.adapter(), Alone(rank, 2)) for rank in (0, 1)]
    cuts = shards[0].cuts(whole)
    parts = [dict(loaded(checkpoint, one).named_parameters()) for one in shards]
    for name, weight in whole.named_parameters():
        found = [part[name] for part in parts]
        assert torch.equal(joined(found, cuts.get(name)), weight), name
        divided = "proj" in name or name == "lm_head.weight"
        assert all(2 * part.numel() == weight.numel() for part in found) == divided, name


def test_what_cannot_be_divided_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"tp is 3: w has 8 values .* 3 does not divide 8"):
        Cut(0, packed=2).take(torch.zeros(16, 2), "w", 0, 3)


def test_a_plan_in_a_style_that_is_not_known_is_refused(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(build("qwen2_5_vl", tmp_path / "t"))
    model = loaded(checkpoint)
    decoder = checkpoint.adapter().decoder(model)
    shards = Shards(checkpoint.adapter(), Alone(0, 2))
    usual = decoder.config.base_model_tp_plan
    decoder.config.base_model_tp_plan = usual | {"layers.*.mlp.up_proj": "sequence_parallel"}
    with pytest.raises(UnsupportedModel, match="in the style sequence_parallel"):
        shards.cuts(model)
    decoder.config.base_model_tp_plan = {"layers.*.mlp.up_proj": "colwise"}
    with pytest.raises(UnsupportedModel, match="no plan that divides the attention"):
        shards.cuts(model)
