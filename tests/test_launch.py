"""What the launch folder and the documents tell people to type is what the command takes."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from epd.cli.main import build_parser
from epd.config import Config, load_config
from tests.programs import said

ROOT = Path(__file__).parent.parent
LOCAL = ROOT / "launch" / "local"
DOCUMENTS = [
    ROOT / "README.md",
    LOCAL / "README.md",
    ROOT / "launch" / "kubernetes" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def commands(document: Path) -> list[list[str]]:
    """The indented lines that start with epd, as arguments."""
    text = document.read_text().replace("\\\n", " ")
    found = re.findall(r"^    (?:\.venv/bin/)?epd (.+)$", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_document_is_one_that_parses(
    document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for arguments in commands(document):
        args = build_parser().parse_args(arguments)
        load_config(getattr(args, "config", None), getattr(args, "overrides", []))


def test_the_documents_show_commands() -> None:
    assert sum(len(commands(document)) for document in DOCUMENTS) >= 8


@pytest.mark.parametrize("role", ["encode", "prefill", "decode"])
def test_a_worker_by_hand_registers_where_the_gateway_listens(role: str) -> None:
    gateway = load_config(LOCAL / "gateway.yaml")
    worker = load_config(LOCAL / f"{role}.yaml")
    first_port = gateway.listen.partition("-")[0]
    assert worker.gateways == (first_port,)
    assert worker.name == f"{role}-0"


def test_the_script_starts_every_role_with_its_file_and_stops_them_together(
    tmp_path: Path,
) -> None:
    """A stand-in for Python notes what it was started with, then ends."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/started\n')
    python.chmod(0o755)
    subprocess.run(
        [LOCAL / "run.sh", "/m", "--set", "dtype=float32"],
        env={"PYTHON": str(python), "PATH": "/usr/bin:/bin"},
        check=True,
        timeout=60,
    )
    started = sorted((tmp_path / "started").read_text().splitlines())
    assert len(started) == 4
    for line, role in zip(started, ["decode", "encode", "gateway", "prefill"], strict=True):
        arguments = shlex.split(line)
        assert arguments[:3] == ["-m", "epd", role]
        args = build_parser().parse_args(arguments[2:])
        assert load_config(args.config, args.overrides) == load_config(
            LOCAL / f"{role}.yaml", ["model=/m", "dtype=float32"]
        )


def test_a_dry_run_of_the_script_prints_every_role_and_starts_nothing(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    python.chmod(0o755)
    done = subprocess.run(
        [LOCAL / "run.sh", "/m", "--set", "dtype=float32"],
        env={"PYTHON": str(python), "PATH": "/usr/bin:/bin", "EPD_DRY_RUN": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [line[4] for line in lines] == ["gateway", "encode", "prefill", "decode"]
    for line in lines:
        args = build_parser().parse_args(line[4:])
        assert load_config(args.config, args.overrides).model == "/m"
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("module", ["bench.topologies", "bench.second_turn"])
def test_a_benchmark_says_which_question_it_answers(module: str) -> None:
    done = said(["--help"], module=module)
    assert done.returncode == 0 and "?\n" in done.stdout


def test_the_configuration_document_names_every_section() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    for name, field in Config.model_fields.items():
        if isinstance(field.default, (str, int, float, tuple, type(None))):
            continue
        assert f"| `{name}` |" in text, name
