"""Flags that users of other servers know are keys of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from epd.cli.main import build_parser, main
from epd.cli.media_flags import media_settings
from epd.config import Config, load_config
from epd.types import Modality


def configured(*flags: str, command: str = "serve") -> Config:
    args = build_parser().parse_args([command, *flags])
    return load_config(overrides=[*media_settings(args), *args.overrides])


@pytest.mark.parametrize(
    ("flags", "read", "value"),
    [
        (
            ["--limit-mm-per-prompt", '{"image": 8, "video": 0, "time_series": 2}'],
            lambda media: (
                media.image.per_request,
                media.video.per_request,
                media.time_series.per_request,
            ),
            (8, 0, 2),
        ),
        (["--enable-mm-embeds"], lambda media: media.enable_embeds, True),
        (
            ["--allowed-local-media-path", "/media: x"],
            lambda media: media.allowed_local_path,
            Path("/media: x"),
        ),
        (
            ["--allowed-media-domains", "a.example, b.example,"],
            lambda media: media.allowed_domains,
            ("a.example", "b.example"),
        ),
        (
            ["--media-io-kwargs", '{"video": {"num_frames": 16, "fps": 0.5}}'],
            lambda media: media.io_kwargs,
            {Modality.VIDEO: {"num_frames": 16, "fps": 0.5}},
        ),
        (
            ["--mm-processor-kwargs", '{"max_pixels": 1003520, "text": "a: \\u00e9"}'],
            lambda media: media.processor_kwargs,
            {"max_pixels": 1003520, "text": "a: \u00e9"},
        ),
    ],
)
@pytest.mark.parametrize("command", ["serve", "gateway", "encode", "engine"])
def test_a_flag_sets_its_key(flags: list[str], read: Any, value: Any, command: str) -> None:
    assert read(configured(*flags, command=command).media) == value
    assert read(configured(command=command).media) != value


def test_set_wins_over_a_flag() -> None:
    flags = ["--limit-mm-per-prompt", '{"image": 8}', "--set", "media.image.per_request=3"]
    assert configured(*flags).media.image.per_request == 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--limit-mm-per-prompt", "image=8"], "--limit-mm-per-prompt: not valid JSON"),
        (["--limit-mm-per-prompt", "8"], "--limit-mm-per-prompt: must be a JSON object"),
        (["--limit-mm-per-prompt", '{"smell": 8}'], "media.smell: unknown key"),
        (["--limit-mm-per-prompt", '{"image": -1}'], "media.image.per_request"),
        (["--media-io-kwargs", "[]"], "--media-io-kwargs: must be a JSON object"),
        (["--media-io-kwargs", '{"smell": {}}'], "media.io_kwargs.smell"),
        (["--mm-processor-kwargs", "{"], "--mm-processor-kwargs: not valid JSON"),
    ],
)
def test_a_wrong_flag_ends_the_command_and_is_named(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *flags]) == 2
    assert said in capsys.readouterr().err
