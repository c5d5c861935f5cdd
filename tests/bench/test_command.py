"""`epd bench`, against a server without a model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.serving.generator import Case, measured
from epd.cli.main import main

SECONDS = 60.0


def bench(url: str, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr."""
    code = main(["bench", "--base-url", url, "--disable-tqdm", *argv])
    said = capsys.readouterr()
    return code, said.out, said.err


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


SMALL = [
    *("--num-prompts", "5", "--random-input-len", "20"),
    *("--random-output-len", "4", "--random-range-ratio", "1"),
]
TINY = "--image-resolution 16x16 --video-resolution 16x16 --video-frames 2 --audio-seconds 0.1"


@pytest.mark.parametrize("name", ["random", "image", "video", "audio", "mixed"])
def test_made_up_requests_are_asked_and_every_token_counted(
    null_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    file = tmp_path / "out.jsonl"
    argv = [*SMALL, *TINY.split(), "--dataset-name", name, "--output-file", str(file)]
    code, said, _ = bench(null_url, capsys, *argv, "--output-details", "--tag", "t")
    assert code == 0
    assert "Successful requests:                     5\n" in said
    (found,) = lines(file)
    assert (found["tag"], found["dataset_name"], found["request_rate"]) == ("t", name, "inf")
    assert (found["completed"], found["wrong_lengths"]) == (5, 0)
    assert found["output_lens"] == [4] * 5
    for request in found["requests"]:
        assert len(request["arrivals"]) == 4


def test_several_rates_are_measured_one_after_the_other(
    null_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "out.jsonl"
    argv = ["--request-rate", "50", "200", "--output-file", str(file), "--max-concurrency", "2"]
    code, said, _ = bench(null_url, capsys, *SMALL, *argv, "--plot", str(tmp_path / "plots"))
    assert code == 0
    assert [found["request_rate"] for found in lines(file)] == [50, 200]
    assert [found["seed"] for found in lines(file)] == ["1", "1.1"]
    assert said.endswith("waterfall.png\n")
    assert (tmp_path / "plots" / "rate_sweep.png").is_file()


def test_a_trace_is_replayed_at_its_times(
    null_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, file = tmp_path / "trace.csv", tmp_path / "out.jsonl"
    rows = ["0,0,9,3", "0.2,1,30,2", "0.3,2,99,1"]
    path.write_text("\n".join(["TIMESTAMP,NumImages,ContextTokens,GeneratedTokens", *rows]))
    argv = ["--dataset-name", "trace", "--dataset-path", str(path), "--trace-speed", "2"]
    argv += ["--output-file", str(file), "--output-details", *TINY.split()]
    assert bench(null_url, capsys, *argv)[0] == 0
    (found,) = lines(file)
    assert found["request_rate"] == "trace"
    assert [request["due"] for request in found["requests"]] == [0.0, 0.1, 0.15]
    assert all(request["sent"] >= request["due"] for request in found["requests"])
    assert [request["kind"] for request in found["requests"]] == ["text", "image", "image"]
    assert found["output_lens"] == [3, 2, 1]


def test_goals_that_nobody_meets_are_goodput_of_nothing(
    null_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, said, _ = bench(null_url, capsys, *SMALL, "--goodput", "ttft:1000000", "e2el:0.001")
    assert "Request goodput (req/s):                 0.00\n" in said
    assert "TTFT within 1e+06 ms (%):                100.00\n" in said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--model other", "serves no model 'other': it has null"),
        ("--base-url http://127.0.0.1:9", "no server answers at http://127.0.0.1:9"),
        ("--dataset-name trace", "needs --dataset-path"),
        ("--backend vllm --dataset-name image", "--backend: text completions take no chats"),
        ("--num-prompts 0", "--num-prompts has to be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(
    null_url: str, capsys: pytest.CaptureFixture[str], argv: str, said: str
) -> None:
    code, out, err = bench(null_url, capsys, *argv.split())
    assert (code, out) == (2, "")
    assert err.startswith("epd bench: ")
    assert said in err


def test_a_url_that_is_no_apis_is_said_to_be_none(
    null_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = bench(f"{null_url}/else", capsys)
    assert code == 2
    assert "/else/v1/models is 404: is" in err


def test_an_interrupt_shows_what_is_there_so_far(null_url: str, tmp_path: Path) -> None:
    """At one request per 20 seconds, after the first of two was answered."""
    file = tmp_path / "out.jsonl"
    argv = [sys.executable, "-m", "bench.serving", "--base-url", null_url, *SMALL]
    argv += ["--num-prompts", "2", "--request-rate", "0.00001", "--output-file", str(file)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner may ignore it
    try:
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stderr is not None
    while "requests 1/2" not in (line := process.stderr.readline()) or "making" in line:
        assert line, "it ended"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "Successful requests:                     1\n" in out
    (found,) = lines(file)
    assert found["interrupted"]


def test_the_generator_is_measured_against_the_servers_own_times(null_url: str) -> None:
    """In order: due, sent, received; written, heard. What that takes depends on the machine."""
    for case in (
        Case(name="small", rate=100, seconds=0.2, tokens=3),
        Case(name="pictures", rate=50, seconds=0.1, tokens=2, pictures=True),
    ):
        found = measured(case, null_url)
        assert found["failed"] == 0
        assert found["requests"] == round(case.rate * case.seconds)
        for name in ("lateness_ms", "sent_to_received_ms", "written_to_heard_ms"):
            assert 0 <= found[name]["median"] <= found[name]["max"] < 10_000
        assert found["sent_mb_per_s"] > (1 if case.pictures else 0)
