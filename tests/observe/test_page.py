"""docs/metrics.md says what there is."""

from __future__ import annotations

from pathlib import Path

from epd.observe import Metrics
from epd.observe.page import page
from epd.observe.reported import GAUGES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_in_step_with_the_registry() -> None:
    """Otherwise: python -m epd.observe.page > docs/metrics.md"""
    assert (DOCS / "metrics.md").read_text() == page()


def test_every_family_and_every_gauge_has_a_help_text() -> None:
    assert all(family.documentation for family in Metrics().families())
    assert all(GAUGES.values())
