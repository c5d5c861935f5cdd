"""Every command that a page shows is run by a test, or says that it needs a real cluster."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from epd.cli.main import main as epd
from tests.launch.test_documents import GUIDES, MARK, checkout
from tests.launch.test_documents import commands as run_of_guides

__all__ = ["checkout"]

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    *(
        "epd",
        "python",
        "python3",
        "pip",
        "make",
        "sh",
        "bash",
        "docker",
        "kubectl",
        "sbatch",
        "ray",
    ),
    *("curl", "printf", "openssl", "git", "npm", "node", "ssh", "apt-get", "sudo", "promtool"),
}
QUICK = ("keys", "check", "size")
"""Commands of epd that end by themselves: run here."""
SHELL = ("printf",)
"""Programs that end by themselves, with what a line pipes them into."""
OUTSIDE = {"kubectl": "a real cluster", "docker": "a container engine"}
"""Programs that none of our machines has something to run on: a page says so once."""


@dataclass(frozen=True)
class Command:
    """A line of a page, its continuations joined. `quoted`: within a sentence or a table."""

    page: str
    line: str
    quoted: bool

    @property
    def words(self) -> list[str]:
        """Without what sets its environment, comments and `.venv/bin/`."""
        words = shlex.split(self.line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []


def pages() -> list[Path]:
    """All but the records of measurements, whose commands belong to their commits."""
    folders = ("docs", "launch", "docker", "bench", "configs", "examples")
    found = [page for folder in folders for page in (ROOT / folder).rglob("*.md")]
    return [ROOT / "README.md", *(page for page in found if "results" not in page.parts)]


def commands_of(page: str, text: str) -> Iterator[Command]:
    """Of indented lines and of blocks for a shell; within sentences of `python -m` and `make`."""
    text = text.replace("\\\n", " ")
    shells = re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^ {4,}(\S.*)$", plain, re.MULTILINE)
    for line in [*lines, *"".join(shells).splitlines()]:
        found = Command(page, line.removeprefix("$ ").strip(), quoted=False)
        if found.line and _is_command(found):
            yield found
    for line in re.findall(r"`((?:\.venv/bin/)?(?:python -m|make) [^`]+)`", plain):
        yield Command(page, " ".join(line.split()), quoted=True)


def _is_command(command: Command) -> bool:
    try:
        return bool(command.words) and command.words[0] in PROGRAMS
    except ValueError:  # what a program prints may hold one quote
        return False


def all_commands() -> list[Command]:
    return [
        command
        for page in pages()
        for command in commands_of(str(page.relative_to(ROOT)), page.read_text())
    ]


def who_runs(command: Command) -> str | None:
    """The test that runs it, or what it says that it needs; None if nobody does."""
    words = command.words
    if MARK in command.line:
        return MARK
    if command.page in {f"docs/{guide}" for guide in GUIDES} and not command.quoted:
        plain = " ".join(command.line.split())
        return "tests/launch/test_documents.py" if plain in _run_of_guides() else None
    match words:
        case ["epd", verb, *_] if verb in QUICK:
            return "tests/test_documents.py"
        case [program, *_] if program in SHELL:
            return "tests/test_documents.py"
        case ["epd", "status" | "trace" | "bench" as verb, *_]:
            return _mentioned(f'"{verb}"', "tests/cli")
        case ["curl", "-s", url, *_] if command.page == "README.md" and url.endswith(
            "/completions"
        ):
            return "tests/cluster/test_readme.py"
        case ["epd", "serve", _]:
            return "tests/cluster/running.py"
        case ["epd", "serve", *rest] if set(rest[::2]) <= {"FOLDER", "--topology", "&"} or (
            rest[:1] == ["FOLDER"] and set(rest[1::2]) <= {"--topology"}
        ):
            return "tests/cluster/running.py"
        case ["epd", role, "--config", file, *rest] if file == f"launch/local/{role}.yaml":
            alone = all(re.match("(model|name|wire.curve_dir)=", value) for value in rest[1::2])
            return "tests/cluster/roles.py" if alone else None
        case ["make", target, *_]:
            return _mentioned(f'"{target}"', "tests/test_make.py")
        case ["make"]:
            return "tests/test_make.py"
        case ["python", "-m", "pytest", *paths]:
            files = [path.partition("::")[0] for path in paths if path.startswith("tests")]
            return files[0] if files and all((ROOT / path).exists() for path in files) else None
        case ["python", "-m", module, *_] if importlib.util.find_spec(module):
            return _mentioned(module, "tests")
        case ["python", file, *_] if (ROOT / file).is_file():
            return _mentioned(Path(file).stem, "tests")
        case [program, *_] if program in OUTSIDE:
            said = f"`{program}` needs {OUTSIDE[program]}"
            return said if said in " ".join((ROOT / command.page).read_text().split()) else None
    return None


@cache
def _run_of_guides() -> set[str]:
    return {" ".join(line.split()) for line in run_of_guides(marked=False)}


@cache
def _mentioned(word: str, place: str) -> str | None:
    """The first test that names it."""
    where = ROOT / place
    files = sorted(where.rglob("*.py")) if where.is_dir() else [where]
    for file in files:
        if file != Path(__file__) and re.search(rf"{re.escape(word)}(?![\w.])", file.read_text()):
            return str(file.relative_to(ROOT))
    return None


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_run_by_a_test_or_says_what_it_needs(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    found = [one for one in commands_of(name, page.read_text()) if who_runs(one) is None]
    assert [one.line for one in found] == []


@pytest.mark.parametrize(
    "line",
    [
        "epd gateway --port 1",
        "epd decode --config launch/local/decode.yaml --set listen=tcp://10.0.0.1",
        "epd serve FOLDER --topology EPD --port 1",
        "make test-nothing",
        "python -m pytest tests/no/test_such.py",
        "python -m bench.nothing",
        "python -m launch.nothing start x",
        "kubectl get pods",
        "curl http://127.0.0.1:8000/health",
        "pip install epd",
    ],
)
def test_a_command_that_nobody_runs_is_found(line: str) -> None:
    """Negative controls: as an indented line, and in a block for a shell."""
    [indented] = commands_of("README.md", f"Text:\n\n    {line}\n")
    [fenced] = commands_of("README.md", f"```sh\n{line}\n```\n")
    assert indented == fenced
    assert who_runs(indented) is None
    assert who_runs(Command("README.md", f"{line}  {MARK}", quoted=False)) == MARK


def test_a_guide_s_command_that_its_own_test_does_not_run_is_found() -> None:
    assert who_runs(Command("docs/operations.md", "make test", quoted=False)) is None


def test_whoever_runs_a_command_is_there() -> None:
    for command in all_commands():
        who = who_runs(command) or ""
        assert not who.startswith("tests/") or (ROOT / who.partition("::")[0]).exists(), command


def test_commands_are_found_on_most_pages() -> None:
    """Otherwise the test of them would say nothing."""
    found = all_commands()
    assert len({command.page for command in found}) >= 12
    assert len(found) > 150
    assert {command.words[0] for command in found} >= {"epd", "python", "make", "kubectl", "docker"}


def quick_ones() -> list[str]:
    return sorted(
        {
            one.line
            for one in all_commands()
            if MARK not in one.line and (one.words[0] in SHELL or one.words[1] in QUICK)
        }
    )


@pytest.mark.parametrize("line", quick_ones())
def test_a_command_that_ends_by_itself_does_what_it_says(line: str, checkout: Path) -> None:
    program, verb, *rest = Command("", line, quoted=False).words
    if program in SHELL:
        subprocess.run(["bash", "-ec", line], check=True, capture_output=True, timeout=60)
        return
    if verb == "keys":
        shutil.rmtree(checkout / rest[0], ignore_errors=True)
    assert epd([verb, *rest]) == 0
