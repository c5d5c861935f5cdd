"""What is said of a number beside its floor and its target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.gpu.clusters import chosen_ways, handoff_ms, lent
from bench.gpu.rows import DECODE, HANDOFF, Fault, Row, table

ROW = Row(section="decode", model="m", what="batch 1", value=5.0, unit="ms", floor=4.0, share=0.8)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (ROW, ""),
        (replace(ROW, target=DECODE), "met"),
        (replace(ROW, target=DECODE, share=0.79), "not met"),
        (replace(ROW, target=DECODE, share=None), "not known"),
        (replace(ROW, target=HANDOFF, share=0.05), "met"),
        (replace(ROW, target=HANDOFF, share=0.051), "not met"),
    ],
)
def test_a_target_is_met_from_its_own_side(row: Row, verdict: str) -> None:
    assert row.verdict == verdict == row.shown()["verdict"]


def test_a_table_has_targets_beside_numbers_and_what_failed_below() -> None:
    rows = [replace(ROW, target=DECODE), replace(ROW, floor=None, share=None)]
    faults = [
        Fault(section="stages", model="m", reason="line 3\nValueError: broke"),
        Fault(section="clusters", model="m", reason="out of time after 9 s, in ttft", late=True),
    ]
    lines = table(rows, faults).splitlines()
    assert lines[1].split()[-6:] == ["4", "ms", "0.8", ">=", "0.8", "met"]
    assert lines[2].split()[-3:] == ["ms", "-", "-"]
    assert lines[3:] == [
        "stages m: failed: ValueError: broke",
        "clusters m: not measured: out of time after 9 s, in ttft",
    ]


def test_hand_off_is_the_slowest_items_rows_and_what_is_left_of_the_kv() -> None:
    path: dict[str, Any] = {
        "items": [
            {"ms": {"encode": 9.0, "transfer": 30.0}, "began_ms": {"encode": 1.0, "transfer": 2.0}},
            {"ms": {"encode": 9.0, "transfer": 5.0}, "began_ms": {"encode": 41.0, "transfer": 50}},
            {"ms": {}, "began_ms": {}},
        ],
        "decode": {"ms": {"transfer": 40.0, "handoff": 2.0}},
    }
    assert handoff_ms(path) == {"rows": 22.0, "kv": 2.0}
    assert handoff_ms({**path, "items": path["items"][1:]}) == {"rows": 5.0, "kv": 2.0}


def test_ways_are_those_that_workers_tell() -> None:
    assert chosen_ways({"workers": [{"name": "prefill-0"}]}) == []
    workers = [
        {"transfers": {"prefill-0": "shared memory"}},
        {"transfers": {"decode-0": "cuda_ipc", "decode-1": "shared memory"}},
        {"transfers": {}},
    ]
    assert chosen_ways({"workers": workers}) == ["cuda_ipc", "shared memory"]


def test_what_is_sent_over_sockets_is_lent_by_nobody() -> None:
    assert "wire.shm_bytes=0" in lent(0)
    assert {setting.partition("=")[2] for setting in lent(0)} == {"0"}
    assert "wire.shm_bytes=0" not in lent(4096)
