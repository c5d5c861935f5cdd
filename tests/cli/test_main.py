"""The command line is frozen: a new setting is a key of the configuration, not a flag."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import epd
from epd.cli.main import ROLE_HELP, build_parser, main
from epd.config import ROLES, Config, load_config

MEDIA_FLAGS = [
    "--limit-mm-per-prompt",
    "--enable-mm-embeds",
    "--allowed-local-media-path",
    "--allowed-media-domains",
    "--media-io-kwargs",
    "--mm-processor-kwargs",
]
MODEL_FLAGS = [
    "--served-model-name",
    "--max-model-len",
    "--chat-template",
    "--trust-request-chat-template",
    "--tensor-parallel-size",
    "--load-format",
    "--trust-remote-code",
]
BENCH_FLAGS = """--base-url --host --port --backend --model --api-key --header --extra-request-body
--disable-ignore-eos --timeout-s --dataset-name --dataset-path --num-prompts --seed
--random-input-len --random-output-len --random-range-ratio --sharegpt-output-len --trace-speed
--mix --image-count --random-image-count --image-resolution --image-format --image-content
--video-count --video-resolution --video-frames --video-fps --audio-count --audio-seconds
--media-hit-rate --media-pool --request-rate --burstiness --max-concurrency --warmup-requests
--goodput --output-file --output-details --plot --tag --disable-tqdm"""
ROLE_FLAGS = ["--config", "--set", "--ready-fd", "--parent-fd", *MEDIA_FLAGS]
FLAGS = {
    "serve": [
        *("MODEL", "--topology", "--host", "--port", "--api-key", "--no-ui"),
        *("--config", "--set", "--ready-fd", "--parent-fd"),
        *MODEL_FLAGS,
        *MEDIA_FLAGS,
    ],
    "check": ["FILE", "--set"],
    "keys": ["FOLDER"],
    "size": [
        *("MODEL", "--image", "--video", "--audio", "--text", "--output", "--rate", "--batch"),
        *("--tp", "--tflops", "--memory-tbytes", "--link-gbits"),
        *("--encode-share", "--prefill-share", "--busy", "--json"),
    ],
    "trace": ["FILE", "--ask", "--item", "--output", "--url", "--key"],
    "status": ["REQUEST", "--url", "--key"],
    "bench": BENCH_FLAGS.split(),
    "drain": ["NAME", "--seconds", "--url", "--key"],
    **dict.fromkeys(ROLES, ROLE_FLAGS),
}


def commands() -> dict[str, argparse.ArgumentParser]:
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("no commands")


def test_these_are_all_the_commands_and_all_their_flags() -> None:
    found = {
        name: [
            option
            for action in parser._actions
            if not isinstance(action, argparse._HelpAction)
            for option in (action.option_strings or [str(action.metavar)])
        ]
        for name, parser in commands().items()
    }
    assert found == FLAGS


def test_every_role_is_a_command() -> None:
    assert set(ROLE_HELP) == set(ROLES)


def test_every_flag_has_a_help_text() -> None:
    for name, parser in commands().items():
        for action in parser._actions:
            assert action.help, (name, action)


def test_check_prints_the_resolved_configuration_as_yaml_that_loads_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("topology: EPD\n")
    assert main(["check", str(path), "--set", "dtype=float32"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["topology"] == "EPD"
    path.write_text(printed)
    assert load_config(path) == Config(topology="EPD", dtype="float32")


def test_check_of_a_wrong_file_exits_with_2_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("gateway:\n  prot: 1\n")
    assert main(["check", str(path)]) == 2
    assert f"epd check: {path}: gateway.prot: unknown key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "/no/such/folder"], "epd serve: model: /no/such/folder is no folder with a"),
        (["serve", "--topology", "2X"], "topology '2X' is not NENPND"),
        (["serve", "--port", "many"], "gateway.port: Input should be a valid integer"),
        (["serve", "--set", "name=x"], "are for a role started by hand"),
        (["encode", "--set", "model=m"], "epd encode: gateways is not set"),
        (["gateway"], "epd gateway: model is not set"),
    ],
)
def test_a_command_that_cannot_work_exits_with_2_and_says_why(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_an_early_error_of_a_role_reaches_its_supervisor() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as pipe:
        assert main(["decode", "--set", "model=m", "--ready-fd", str(writer)]) == 2
        assert '{"error": "gateways is not set' in pipe.read()


def test_python_m_epd_is_the_command_and_help_loads_nothing_heavy() -> None:
    code = (
        "import runpy, sys; sys.argv = ['epd', '--version']\n"
        "try: runpy.run_module('epd', run_name='__main__')\n"
        "except SystemExit: print(sorted({'torch', 'pydantic', 'zmq'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"epd {epd.__version__}\n[]\n"


def test_keys_makes_a_folder_once_that_nobody_else_can_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "keys"
    assert main(["keys", str(folder)]) == 0
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert main(["keys", str(folder)]) == 2
    assert "has keys already" in capsys.readouterr().err
