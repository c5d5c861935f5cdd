"""A web site on loopback."""

from tests.media.conftest import site

__all__ = ["site"]
