"""Flags that users of other servers know are keys of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from epd.cli.main import build_parser, main
from epd.cli.model_flags import model_settings
from epd.config import Config, load_config


def configured(*flags: str) -> Config:
    args = build_parser().parse_args(["serve", *flags])
    return load_config(overrides=[*model_settings(args), *args.overrides])


@pytest.mark.parametrize(
    ("flags", "read", "value"),
    [
        (["--served-model-name", "a: b"], lambda c: c.gateway.served_model_name, "a: b"),
        (
            ["--served-model-name", "m", "n", "o"],
            lambda c: (c.gateway.served_model_name, c.gateway.other_model_names),
            ("m", ("n", "o")),
        ),
        (["--max-model-len", "4096"], lambda c: c.language.max_context, 4096),
        (["--max-model-len", "32k"], lambda c: c.language.max_context, 32_000),
        (["--max-model-len", "32K"], lambda c: c.language.max_context, 32_768),
        (["--max-model-len", "1.5K"], lambda c: c.language.max_context, 1536),
        (["--chat-template", "a.jinja"], lambda c: c.gateway.chat_template, Path("a.jinja")),
        (
            ["--trust-request-chat-template"],
            lambda c: c.gateway.trust_request_chat_template,
            True,
        ),
        (
            ["--tensor-parallel-size", "2"],
            lambda c: {
                c.placement.of(role).tp for role in ("prefill", "decode", "fused", "engine")
            },
            {2},
        ),
        (["--load-format", "dummy"], lambda c: c.load_format, "dummy"),
        (["--trust-remote-code"], lambda c: c.trust_remote_code, True),
    ],
)
def test_a_flag_sets_its_key(flags: list[str], read: Any, value: Any) -> None:
    assert read(configured(*flags)) == value
    assert read(configured()) != value


def test_set_wins_over_a_flag() -> None:
    flags = ["--max-model-len", "64", "--set", "language.max_context=32"]
    assert configured(*flags).language.max_context == 32


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--max-model-len", "much"], "--max-model-len: 'much' is no number of tokens"),
        (["--max-model-len", "-1"], "--max-model-len: '-1' is no number of tokens"),
        (["--max-model-len", "0"], "language.max_context"),
    ],
)
def test_a_wrong_flag_ends_the_command_and_is_named(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *flags]) == 2
    assert said in capsys.readouterr().err
