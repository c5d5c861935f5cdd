"""A cluster in the hands of a program: how it starts, fails and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import epd
from epd.errors import ConfigError, Unavailable
from tests.cluster.front import eventually

# Starts a cluster that never gets ready, says its pid, and waits to be killed.
ORPHANING = """
import sys, threading
import epd
server = epd.serve(sys.argv[1], settings={"serve.start_timeout_s": 600.0})
print(server.pid, flush=True)
threading.Event().wait()
"""


def test_importing_epd_imports_no_torch_and_nothing_of_the_engine() -> None:
    code = (
        "import sys, epd\n"
        "assert 'LLM' in epd.__all__\n"
        "print([name for name in ('torch', 'httpx', 'numpy', 'epd.llm') if name in sys.modules])\n"
        "epd.LLM, epd.SamplingParams, epd.serve\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_what_is_no_name_of_epd_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'LLMs'"):
        epd.LLMs  # noqa: B018


def test_a_folder_without_a_model_is_a_configuration_error(tmp_path: Path) -> None:
    with epd.serve(tmp_path / "none") as server, pytest.raises(ConfigError, match="is no folder"):
        server.wait()
    assert server.stop() == 2
    with pytest.raises(Unavailable, match="was stopped"):
        _ = server.url
    assert not server.running
    assert server.log() == ""


def test_a_wrong_setting_is_told_by_its_key() -> None:
    with pytest.raises(ConfigError, match="language.max_context"):
        epd.LLM(max_model_len=-1)


def test_a_start_that_fails_shows_what_was_logged(tmp_path: Path) -> None:
    """The folder has a configuration that no worker can load."""
    (tmp_path / "config.json").write_text("{")
    with epd.serve(tmp_path) as server, pytest.raises((Unavailable, ConfigError)) as caught:
        server.wait()
    assert "config.json" in str(caught.value) or "did not start" in str(caught.value)


@pytest.mark.alone
def test_a_cluster_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    """kill -9: nobody is left to say good-bye."""
    from tests.checkpoints import build

    model = build("qwen2_5_vl", tmp_path / "tiny")
    argv = [sys.executable, "-c", ORPHANING, str(model)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        cluster = psutil.Process(int(program.stdout.readline()))
        eventually(cluster.children, "the cluster has processes", 120)
        family = [cluster, *cluster.children(recursive=True)]
        os.kill(program.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
