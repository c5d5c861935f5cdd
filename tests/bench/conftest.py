"""A server without a model, for the tests of the load."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.serving.generator import null_server


@pytest.fixture(scope="session")
def null_url() -> Iterator[str]:
    """Its URL. Tokens are 2 ms apart."""
    with null_server(None, gap_ms=2.0) as url:
        yield url
