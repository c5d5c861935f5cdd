"""The commands of the guides: each is run here, or says that it needs a real cluster."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import launch.multi_node.__main__ as multi_node
import launch.ray.__main__ as ray
from epd.cli.main import build_parser
from epd.cli.main import main as epd
from tests.sizing.configs import QWEN2_5_VL_7B, folder

ROOT = Path(__file__).parents[2]
GUIDES = ("deployment.md", "operations.md")
MARK = "# real cluster"
# Of each result: what stands there, and how the guide says it.
MEASURED = {
    "serving": {"84 to 89 ms": "84 to 89 ms", "3317.5": "3.3 s", "6217.2": "6.2 s"},
    "isolation": {"0.11 s instead of 1.7": "| 1.7 s | **0.11 s** |", "533": "533 ms"},
    "parallel_encode": {"2724": "2.7 s", "575 (4.74)": "0.58 s"},
}
LAUNCHERS: dict[str, ModuleType] = {"launch.multi_node": multi_node, "launch.ray": ray}
PROGRAMS = ("epd", "python", "bash", "sbatch", "printf")


def commands(*, marked: bool) -> list[str]:
    """The indented lines of the guides that are commands, without what sets their environment."""
    found = []
    for guide in GUIDES:
        for line in re.findall(r"^ {4,}(\S.*)$", (ROOT / "docs" / guide).read_text(), re.MULTILINE):
            words = [word for word in line.split() if not re.match(r"[A-Z_]+=", word)]
            if words and words[0] in PROGRAMS and (MARK in line) is marked:
                found.append(line.partition(MARK)[0].strip())
    return found


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the commands read, with a folder MODEL and keys, as the current folder."""
    for name in ("configs", "launch"):
        shutil.copytree(ROOT / name, tmp_path / name)
    folder(tmp_path / "MODEL", QWEN2_5_VL_7B)
    for place in ("configs/hosts/cluster-keys", "launch/ray/cluster-keys"):
        assert epd(["keys", str(tmp_path / place)]) == 0
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", commands(marked=False))
def test_a_command_of_a_guide_does_what_it_says(line: str, checkout: Path) -> None:
    words = shlex.split(line)
    if words[:2] == ["epd", "keys"]:
        shutil.rmtree(checkout / words[2], ignore_errors=True)
    if words[0] == "epd":
        assert epd(words[1:]) == 0
    elif words[0] == "python":
        assert LAUNCHERS[words[2]].main(words[3:]) == 0
    else:
        subprocess.run(["bash", "-c", line], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("line", commands(marked=True))
def test_a_command_that_needs_a_cluster_is_one_that_there_is(line: str, checkout: Path) -> None:
    words = shlex.split(line)
    if words[0] == "epd":
        build_parser().parse_args(words[1:])
    elif words[:2] == ["python", "-m"] and words[2] in LAUNCHERS:
        assert LAUNCHERS[words[2]].main([*words[3:], "--dry-run"]) == 0
    else:
        assert words[-1].endswith("epd.sbatch") or (ROOT / Path(*words[2].split("."))).is_dir()


def test_the_guides_have_commands_of_both_kinds() -> None:
    assert len(commands(marked=False)) > 8 and len(commands(marked=True)) > 8


def test_the_table_of_the_guide_is_what_the_command_prints(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    command = "epd size MODEL --image 1080p --text 64 --output 150 --rate 4"
    assert f"    {command}\n" in text
    assert epd(command.split()[1:]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    for line in lines[1:6]:
        assert f"    {line}\n" in text, line


def test_the_measured_numbers_are_those_of_the_results() -> None:
    """Where a result is measured again, the guide has to follow."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    results = ROOT / "bench" / "results"
    for name in re.findall(r"\(\.\./bench/results/([\w.-]+\.md)\)", text):
        assert (results / name).is_file(), name
    for theme, numbers in MEASURED.items():
        (file,) = results.glob(f"{theme}_xeon-2.5ghz-2-cores_*.md")
        measured = " ".join(file.read_text().split())
        for number, shown in numbers.items():
            assert number in measured and shown in text, (theme, number)


def test_the_readme_of_the_launcher_describes_a_cluster_that_it_starts(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "launch" / "multi_node" / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    here = checkout / "configs"
    (here / "cluster.yaml").write_text(block)
    shutil.copytree(here / "hosts" / "cluster-keys", here / "cluster-keys")
    lines = re.findall(r"^    python -m launch\.multi_node (.+)$", text, re.MULTILINE)
    for line in lines:
        words = line.replace("cluster.yaml", "configs/cluster.yaml").split()
        lost = ["--anyway"] if words[0] == "restart" else []
        assert multi_node.main([*words, *lost, "--dry-run"]) == 0
    assert len(lines) == 6 and "decode-2" in capsys.readouterr().out


def test_what_the_guide_explains_is_what_the_programs_say() -> None:
    """The first words in quotes of every row stand in a source."""
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = text.partition("Of processes")[2].partition("## When")[0]
    said = re.findall(r"^\| `([^`]+)`", rows, re.MULTILINE)
    files = [*(ROOT / "epd").rglob("*.py"), *(ROOT / "launch").rglob("*.[ps][yh]")]
    source = re.sub(r'"\s+f?"', "", "".join(file.read_text() for file in files))
    for words in said:
        start = re.split(r"HOST: |N|\.\.\.", words.removeprefix("HOST: "))[0].rstrip()
        assert start in source, words
    assert len(said) > 12
