"""A web site on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.media.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    """A running site, stopped at the end."""
    site = Site()
    yield site
    site.close()
