"""`epd bench` against a real cluster: text, pictures, videos, sounds, and items that come again.

test_path.py has some of each in one run, against a cluster that runs there anyway.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from epd.cli.main import main
from tests.cluster.running import Cluster

pytestmark = pytest.mark.slow

ITEMS = "--image-resolution 56x56 --video-resolution 56x56 --video-frames 4 --audio-seconds 0.5"
LENGTHS = "--random-input-len 24 --random-output-len 4 --random-range-ratio 1"
SPENT = {
    "image": {"encode.decode", "encode.preprocess", "encode.encode", "prefill.transfer"},
    "video": {"encode.decode", "encode.preprocess", "encode.encode", "prefill.transfer"},
    "audio": {"encode.decode", "encode.preprocess", "encode.encode", "prefill.transfer"},
}


@pytest.fixture(scope="module")
def cluster(path_of: Callable[[str], Path]) -> Iterator[Cluster]:
    running = Cluster(path_of("qwen2_5_omni"), "EPD")
    yield running
    assert running.stop() == 0


def bench(cluster: Cluster, tmp_path: Path, *argv: str) -> dict[str, Any]:
    """The JSON object of a run in which nothing failed."""
    file = tmp_path / "out.jsonl"
    common = ["--base-url", cluster.url, "--output-file", str(file), "--disable-tqdm"]
    assert main(["bench", *common, *ITEMS.split(), *LENGTHS.split(), *argv]) == 0
    found: dict[str, Any] = json.loads(file.read_text().splitlines()[-1])
    return found


def test_prompts_have_the_tokens_that_were_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    """The server's own count, less the chat template, whatever its tokenizer makes of a word."""
    argv = ["--num-prompts", "6", "--max-concurrency", "3", "--random-input-len", "200"]
    found = bench(cluster, tmp_path, *argv, "--output-details")
    template = 30
    assert all(190 <= num <= 210 + template for num in found["input_lens"])
    assert found["output_lens"] == [4] * 6
    assert found["wrong_lengths"] == found["failed"] == 0
    assert {"prefill.prefill", "decode.decode"} <= set(found["stages_ms"])
    for request in found["requests"]:
        assert sum(num for _, num in request["arrivals"]) <= 4


@pytest.mark.parametrize("kind", SPENT)
def test_items_of_every_kind_are_read_by_the_model(
    cluster: Cluster, tmp_path: Path, kind: str
) -> None:
    found = bench(cluster, tmp_path, "--dataset-name", kind, "--num-prompts", "2")
    assert found["wrong_lengths"] == 0
    assert found["total_input_audio_tokens" if kind == "audio" else "total_input_vision_tokens"] > 0
    assert SPENT[kind] <= set(found["stages_ms"])
    assert found["items"] == {"asked": 2, "repeated": 0, "cached": 0}


@pytest.mark.parametrize("count", [1, 2])
def test_exactly_the_items_that_come_again_cost_no_tower(
    cluster: Cluster, tmp_path: Path, count: int
) -> None:
    argv = ["--dataset-name", "image", "--image-count", str(count), "--num-prompts", "5"]
    argv += ["--media-hit-rate", "0.6", "--seed", str(10 + count), "--max-concurrency", "2"]
    found = bench(cluster, tmp_path, *argv)
    again = round(0.6 * 5 * count)
    assert found["items"] == {"asked": 5 * count, "repeated": again, "cached": again}


def test_what_the_model_does_not_take_is_said_before_the_load(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["bench", "--base-url", cluster.url, *ITEMS.split(), "--num-prompts", "1"]
    assert main([*argv, "--random-input-len", "1000000", "--random-range-ratio", "1"]) == 2
    assert "does not answer: HTTP 400" in capsys.readouterr().err
