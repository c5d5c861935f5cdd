"""What a comparison with other servers keeps, and what it makes of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from bench.peers.__main__ import _points
from bench.peers.loads import LOADS
from bench.peers.page import LAST, write_page
from bench.peers.results import Results
from bench.peers.rows import ROWS, lines
from bench.peers.servers import OURS, PEERS, SERVERS, transformers_body
from bench.peers.table import commands, table


def run(server: str, load: str, number: int = 0, **found: Any) -> dict[str, Any]:
    return {"server": server, "load": load, "round": number, **found}


def answer(**times: float) -> dict[str, Any]:
    return {"tokens": 10, "ttft": 0.1, "tpot": 0.05, **times}


def line(runs: list[dict[str, Any]], name: str) -> Any:
    return next(line for line in lines(runs) if line.row.name.startswith(name))


def test_a_ratio_is_our_best_over_the_best_peer() -> None:
    runs = [
        run("epd-EPD", "alone", seconds=1.0, requests=[answer(tpot=0.06)]),
        run("epd-1E1PD", "alone", seconds=1.0, requests=[answer(tpot=0.09)]),
        run("vllm-float32", "alone", seconds=1.0, requests=[answer(tpot=0.12)]),
        run("transformers-float32", "alone", seconds=1.0, requests=[answer(tpot=0.24)]),
    ]
    found = line(runs, "one text at a time: time per token")
    assert (found.ours, found.peer) == ("epd-EPD", "vllm-float32")
    assert found.ratio == pytest.approx(0.5)
    assert found.reached


def test_more_is_better_for_throughput_and_rounds_are_taken_together() -> None:
    runs = [
        run("epd-EPD", "texts", 0, seconds=1.0, requests=[answer()] * 2),
        run("epd-EPD", "texts", 1, seconds=3.0, requests=[answer()] * 2),
        run("vllm-float32", "texts", 0, seconds=2.0, requests=[answer()] * 2),
        run("transformers-float32", "texts", 0, seconds=4.0, requests=[answer()] * 2),
    ]
    found = line(runs, "8 texts at once")
    assert found.figures["epd-EPD"] == pytest.approx(10.0)
    assert found.peer == "vllm-float32"
    assert found.ratio == pytest.approx(1.0)
    assert not found.reached


def test_a_server_that_was_not_measured_decides_nothing() -> None:
    found = line(
        [run("vllm-float32", "alone", seconds=1.0, requests=[answer()])], "one text at a time"
    )
    assert found.ratio is None and not found.reached


def test_the_table_marks_both_sides_of_the_ratio() -> None:
    runs = [
        run("epd-EPD", "four", seconds=1.0, requests=[answer(ttft=0.08)]),
        run("vllm-float32", "four", seconds=1.0, requests=[answer(ttft=0.1)]),
    ]
    row = next(text for text in table(lines(runs)).splitlines() if "4 pictures" in text)
    assert "**80.0**" in row and "**100**" in row
    assert "0.80 | ≤ 0.7 | missed |" in row


def test_who_answers_one_by_one_is_no_peer_of_streams_beside_pictures() -> None:
    runs = [
        run(name, "mixed", seconds=1.0, requests=[], streams=[answer(tpot=tpot)])
        for name, tpot in (("epd-EPD", 0.12), ("vllm-bfloat16", 0.6), ("transformers-float32", 0.1))
    ]
    found = line(runs, "texts beside 8 pictures")
    assert found.peer == "vllm-bfloat16" and found.reached


def test_a_ratio_among_those_that_compute_alike_stands_beside_the_other() -> None:
    runs = [
        run(name, "alone", seconds=1.0, requests=[answer(ttft=ttft)])
        for name, ttft in (("epd-EPD", 0.6), ("vllm-bfloat16", 2.0), ("vllm-float32", 0.8))
    ]
    found = line(runs, "one text at a time: first token")
    assert (found.ratio, found.alike) == (pytest.approx(0.75), pytest.approx(0.3))


def test_the_page_keeps_what_a_person_wrote(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    results = Results(path=tmp_path / "peers.json")
    write_page(path, results.facts(), lines([]))
    path.write_text(path.read_text() + "\nMemory.\n")
    write_page(path, results.facts(), lines([]))
    assert path.read_text().count(LAST) == 1 and path.read_text().endswith("\nMemory.\n")


def test_what_was_measured_is_kept_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    results = Results.read(path)
    results.add("vllm-float32", "alone", 0, {"seconds": 2.0})
    results.add("vllm-float32", "alone", 1, {"seconds": 3.0})
    results.add("vllm-float32", "alone", 0, {"seconds": 4.0})
    found = Results.read(path)
    assert found.has("vllm-float32", "alone", 1) and not found.has("vllm-float32", "texts", 0)
    assert sorted(one["seconds"] for one in found.runs) == [3.0, 4.0]


def test_every_row_has_a_load_and_no_server_is_on_both_sides() -> None:
    assert {row.load for row in ROWS} == set(LOADS)
    assert not set(OURS) & set(PEERS) and {*OURS, *PEERS} == set(SERVERS)


def test_points_leave_out_what_is_to_be_all() -> None:
    assert _points("vllm-float32:alone") == [("vllm-float32", "alone")]
    assert len(_points("vllm-float32")) == len(LOADS)
    assert len(_points(":alone")) == len(SERVERS)
    with pytest.raises(argparse.ArgumentTypeError, match="sglang"):
        _points("sglang:alone")


def test_a_server_that_refuses_unknown_fields_gets_its_length_otherwise() -> None:
    body = transformers_body("m", [], 7)
    assert "ignore_eos" not in body and "stream_options" not in body
    assert json.loads(body["generation_config"])["min_new_tokens"] == 7


def test_commands_name_no_folder_of_this_machine() -> None:
    shown = SERVERS["transformers-float32"].described(Path("/anywhere/model"))
    text = commands({"transformers": shown})
    assert ".venvs/transformers/bin/python" in text and "CHECKPOINT" in text
    assert "PYTHONPATH=bench/peers/overlays/torchvision" in text
    assert not any(part.startswith("/") for part in text.split())
