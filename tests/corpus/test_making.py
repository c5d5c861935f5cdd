"""The corpus itself: as large as it must be."""

from __future__ import annotations

from collections import Counter

from tests.corpus import ROOMS

WIDTH = 64


def test_there_are_enough_of_every_kind_and_each_has_a_name_of_its_own() -> None:
    names = [entry.name for entries in ROOMS.values() for entry in entries(WIDTH)]
    kinds = Counter(name.partition(":")[0] for name in names)
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert min(kinds[kind] for kind in ("image", "video", "audio", "embeds")) >= 50
    assert len(names) >= 400
