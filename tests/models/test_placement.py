"""Device and dtype are resolved once, and an impossible wish is refused in words."""

from __future__ import annotations

import pytest
import torch

from epd.errors import ConfigError
from epd.models.placement import resolve_device, resolve_dtype
from epd.models.spec import Checkpoint


@pytest.mark.parametrize(("found", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_one(
    found: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert resolve_device("auto") == device
    assert resolve_device("cpu") == "cpu"


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        resolve_device("cuda")


def test_auto_dtype_is_the_checkpoints_own(checkpoint: Checkpoint) -> None:
    assert resolve_dtype("auto", checkpoint) == "float32"
    assert resolve_dtype("bfloat16", checkpoint) == "bfloat16"
    with pytest.raises(ConfigError, match="int8 is not supported"):
        resolve_dtype("int8", checkpoint)
