"""The untrained model and its processor, made once."""

from __future__ import annotations

from typing import Any

import pytest

from demo import checkpoint


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return checkpoint.build_tokenizer()


@pytest.fixture(scope="session")
def processor(tokenizer: Any) -> Any:
    return checkpoint.build_processor(tokenizer)


@pytest.fixture(scope="session")
def model(tokenizer: Any) -> Any:
    return checkpoint.build_model(tokenizer).eval()
