"""What README.md shows a newcomer is what happens: its commands, against the embedded model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from epd.cli import default_model
from tests.cluster.running import Cluster

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
SHOWN_AT = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(default_model.path(), "1E1P1D")
    yield cluster
    assert cluster.stop() == 0


def block(language: str, holding: str) -> str:
    """The fenced block of a language that has this in it."""
    (found,) = (
        text
        for text in re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
        if holding in text
    )
    return str(found)


def run(argv: list[str], cluster: Cluster, text: str) -> str:
    """Its output, from the root of a checkout, with the cluster where README says it is."""
    done = subprocess.run(
        argv,
        input=text.replace(SHOWN_AT, cluster.url),
        cwd=ROOT,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl_is_answered_as_shown(cluster: Cluster) -> None:
    answer = run(["bash"], cluster, block("sh", "curl"))
    shown = block("json", '"content"').strip()
    assert re.sub(r"\s", "", shown) in re.sub(r"\s", "", answer)


def test_openais_client_is_answered_as_shown(cluster: Cluster) -> None:
    program = block("python", "OpenAI")
    shown = re.findall(r"^# (.*)$", program, flags=re.MULTILINE)
    assert len(shown) == program.count("print(")
    assert run([sys.executable], cluster, program).splitlines() == shown
