"""Compiled blocks of vision towers compute what transformers' modules compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from epd.models.compiled.kernels import Kernels
from epd.models.compiled.tower import CompiledBlock, compile_blocks
from epd.models.leaves import replace_leaves
from epd.models.partial import load_part
from epd.models.random_checkpoint import Sizes, build_random_checkpoint
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.towers import Prepared, Towers, load_towers
from epd.types import Modality
from tests.checkpoints import build
from tests.models.bent import bend_vectors, error
from tests.models.media import MEDIA
from tests.models.pictures import asked, picture, prepare

MODALITIES = (Modality.IMAGE, Modality.VIDEO)


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_5_omni", "half tiles"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("towers") / "tiny"
    if request.param == "half tiles":
        build_random_checkpoint(folder, family="qwen2_5_vl", sizes=Sizes(vision_intermediate=52))
    else:
        build(request.param, folder)
    bend_vectors(folder / "model.safetensors")
    return read_checkpoint(folder)


@pytest.fixture(scope="module")
def ours(checkpoint: Checkpoint, cache: Path, kernels: Kernels) -> Towers:
    if not kernels.takes_many:
        pytest.skip("this CPU has no bfloat16 instructions of AVX-512")
    return towers(checkpoint, "bfloat16", cache)


def towers(checkpoint: Checkpoint, dtype: str, cache: Path | None = None) -> Towers:
    return load_towers(checkpoint, modalities=MODALITIES, device="cpu", dtype=dtype, cache=cache)


def media(of: Towers) -> list[Prepared]:
    """Pictures and clips of several sizes, with several windows."""
    large = [prepare(of, picture(400, 500)), prepare(of, picture(1000, 30))]
    others = [
        of.prepare(each, asked(kind, of.dtype_name)) for kind in MODALITIES for each in MEDIA[kind]
    ]
    return large + others


def blocks(of: Towers) -> list[CompiledBlock]:
    return [module for module in of._model.modules() if isinstance(module, CompiledBlock)]


def test_rows_are_as_good_as_with_transformers_blocks(ours: Towers, checkpoint: Checkpoint) -> None:
    assert len(blocks(ours)) == 4
    packed, exact = towers(checkpoint, "bfloat16"), towers(checkpoint, "float32")
    assert not blocks(packed)
    runs = [each.encode(media(each)) for each in (ours, packed, exact)]
    for found, usual, right in zip(*runs, strict=True):
        assert error(found.float(), right) < 1.5 * error(usual.float(), right) + 1e-3


def test_items_do_not_see_each_other(ours: Towers) -> None:
    items = media(ours)
    together = ours.encode(items)
    for item, found in zip(items, together, strict=True):
        assert torch.equal(ours.encode([item])[0], found)


def test_wrong_ends_would_be_seen(ours: Towers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: all windows as one."""
    item = [prepare(ours, picture(400, 500))]
    right = ours.encode(item)[0].float()
    for block in blocks(ours):
        forward = block.forward

        def whole(hidden: torch.Tensor, *, forward: Any = forward, **more: Any) -> torch.Tensor:
            out: torch.Tensor = forward(
                hidden, **{**more, "cu_seqlens": torch.tensor([0, len(hidden)])}
            )
            return out

        monkeypatch.setattr(block, "forward", whole)
    assert error(ours.encode(item)[0].float(), right) > 0.02


def test_the_number_of_threads_changes_nothing(
    ours: Towers, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = media(ours)
    alone = ours.encode(items)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(map(torch.equal, ours.encode(items), alone))


def hook(block: Any) -> None:
    block.mlp.register_forward_hook(lambda *_: None)


def another_norm(block: Any) -> None:
    block.norm2 = nn.Identity()


def one_more(block: Any) -> None:
    block.more = nn.Identity()


@pytest.mark.parametrize("change", [hook, another_norm, one_more])
def test_a_block_that_is_not_exactly_known_stays(
    change: Callable[[Any], None], checkpoint: Checkpoint, kernels: Kernels
) -> None:
    if not kernels.takes_many:
        pytest.skip("this CPU has no bfloat16 instructions of AVX-512")
    parts = checkpoint.adapter().tower_parts(MODALITIES)
    model: Any = load_part(checkpoint, parts, device="cpu", dtype="bfloat16")
    replace_leaves(model, single_rows=False, kernels=kernels)
    known = [m for m in model.modules() if type(m).__name__.endswith("VisionBlock")]
    change(known[1])
    assert compile_blocks(model, kernels) == len(known) - 1
