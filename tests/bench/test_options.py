"""Flags to values, or an error that names the flag."""

from __future__ import annotations

import argparse
import math

import pytest

from epd.bench.flags import add_bench_flags
from epd.bench.options import Options, options
from epd.errors import ConfigError


def said(*argv: str, api_key: str | None = None) -> Options:
    parser = argparse.ArgumentParser()
    add_bench_flags(parser)
    return options(parser.parse_args(argv), api_key)


def test_without_flags_a_server_on_this_machine_is_asked_for_text() -> None:
    found = said()
    assert (found.url, found.api, found.model) == ("http://127.0.0.1:8000", "chat", None)
    assert (found.shape.name, found.shape.num, found.rates) == ("random", 1000, [math.inf])
    assert found.ignore_eos
    assert "Authorization" not in found.headers


@pytest.mark.parametrize(
    ("given", "size"),
    [("4k", (3840, 2160)), ("1080p", (1920, 1080)), ("360p", (640, 360)), ("48x64", (64, 48))],
)
def test_resolutions_are_names_or_height_times_width(given: str, size: tuple[int, int]) -> None:
    assert said("--image-resolution", given).shape.image_size == size
    assert said("--video-resolution", given).shape.video_size == size


def test_goals_and_mixes_are_pairs() -> None:
    assert said("--goodput", "ttft:100", "tpot:2.5").goals_ms == {"ttft": 100.0, "tpot": 2.5}
    assert said("--mix", "text:3", "video:1").shape.mix == {"text": 3.0, "video": 1.0}


def test_a_base_url_may_end_with_v1() -> None:
    assert said("--base-url", "https://host/api/v1/").url == "https://host/api"


def test_a_key_is_shown_to_the_server_and_not_in_the_result() -> None:
    for found in (said("--api-key", "secret"), said(api_key="secret")):
        assert found.headers["Authorization"] == "Bearer secret"
        assert "secret" not in str(found.arguments)


@pytest.mark.parametrize(
    "argv",
    [
        "--num-prompts 0",
        "--random-output-len 0",
        "--image-count 0",
        "--random-range-ratio 1.5",
        "--media-hit-rate -1",
        "--burstiness 0",
        "--request-rate 1 0",
        "--max-concurrency 0",
        "--warmup-requests -1",
        "--image-resolution 8k",
        "--video-resolution 63x64",
        "--goodput itl:5",
        "--goodput ttft:5 ttft:6",
        "--goodput ttft",
        "--mix picture:1",
        "--mix text:0",
        "--header nothing",
        "--extra-request-body {",
        "--extra-request-body []",
        "--base-url host:8000",
    ],
)
def test_a_wrong_value_is_refused_by_its_flag(argv: str) -> None:
    with pytest.raises(ConfigError, match=argv.split()[0]):
        said(*argv.split())
