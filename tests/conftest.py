"""What holds for every test."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

if torch.version.cuda is None or not torch.cuda.is_available():
    # Read when kernels are defined: they run in Triton's interpreter, on CPU tensors.
    os.environ["TRITON_INTERPRET"] = "1"

# How long an example takes says how busy the machine is.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where kernels run: in Triton's interpreter, or compiled, in tests for a GPU alone."""
    if request.param == "cpu" and "TRITON_INTERPRET" not in os.environ:
        pytest.skip("kernels are compiled here")
    return torch.device(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests for a GPU are skipped, not failed, where there is none."""
    for_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not for_gpu:
        return
    if not torch.cuda.is_available():
        for item in for_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
