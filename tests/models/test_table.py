"""The documentation's page of models says what the registry says."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from epd.models.families import BUILT_IN, built_in
from epd.models.table import page
from epd.types import Modality
from tests.checkpoints import BUILDERS

PAGE = Path(__file__).parent.parent.parent / "docs" / "models.md"
LIVE = "tests.cluster.families"


def test_the_page_is_the_registrys() -> None:
    """If not: python -m epd.models.table > docs/models.md"""
    assert PAGE.read_text(encoding="utf-8") == page(built_in())


def test_families_stand_in_the_order_of_their_names() -> None:
    assert list(BUILT_IN) == sorted(BUILT_IN)
    assert [family.name for family in built_in()] == list(BUILT_IN)


def test_every_fact_of_a_family_is_on_the_page() -> None:
    text = page(built_in())
    for family in built_in():
        for name in (family.name, *family.architectures):
            assert name in text
        for fields in family.embeds.values():
            for field in fields:
                assert field.name in text
        for names in family.processor_options.values():
            assert all(name in text for name in names)


def test_facts_of_a_family_are_about_what_it_takes() -> None:
    for family in built_in():
        taken = set(family.modalities)
        assert set(family.placeholders) == set(family.towers) == taken
        assert set(family.processor_options) <= taken and set(family.embeds) <= taken
        assert not family.sound_in_video or {Modality.VIDEO, Modality.AUDIO} <= taken


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_family_has_a_tiny_checkpoint(name: str) -> None:
    assert name in BUILDERS


@pytest.mark.skipif(find_spec(LIVE) is None, reason="the live equality tests are not here")
@pytest.mark.parametrize("name", BUILT_IN)
def test_everything_that_a_family_takes_is_compared_over_a_live_cluster(name: str) -> None:
    """A registered pair of family and modality without an equality test is no claim."""
    row = import_module(LIVE).ROWS[name]
    family = next(family for family in built_in() if family.name == name)
    assert {modality.value for modality in family.modalities} <= row.keys()
