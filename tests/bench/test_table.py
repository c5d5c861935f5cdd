"""The table, as it is printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from epd.bench.result import result
from epd.bench.table import table
from tests.bench.ready import ASKED, run

GOLDEN = Path(__file__).parent / "tables" / "image.txt"


def test_the_table_is_the_known_one_and_what_is_added() -> None:
    assert table(result(ASKED, run())) + "\n" == GOLDEN.read_text()


def test_absent_goals_stages_items_and_failures_take_no_lines() -> None:
    one = run()
    one.records = one.records[1:2]
    found = table(result(replace(ASKED, goals_ms={}, num_items=0, request_rate=None), one))
    for title in ("Goals", "Stages", "Pictures", "Failures", "goodput"):
        assert title not in found
    assert "Traffic request rate:                    inf\n" in found
