"""What a container's probes see of a worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from epd.errors import ConfigError
from epd.wire.inbox import Inbox
from epd.workers.probes import Probes
from epd.workers.process import Worker


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_worker_that_takes_work_is_alive_and_ready(tmp_path: Path) -> None:
    probes = Probes(tmp_path / "probes")
    probes.turned(ready=False)
    assert files(tmp_path / "probes") == {"alive"}
    probes.turned(ready=True)
    assert files(tmp_path / "probes") == {"alive", "ready"}


def test_one_that_drains_is_alive_only_and_one_that_ended_neither(tmp_path: Path) -> None:
    probes = Probes(tmp_path)
    probes.turned(ready=True)
    probes.turned(ready=False)
    assert files(tmp_path) == {"alive"}
    probes.close()
    assert files(tmp_path) == set()


def test_the_age_of_alive_is_how_long_the_loop_has_not_turned(tmp_path: Path) -> None:
    probes = Probes(tmp_path)
    probes.turned(ready=True)
    os.utime(tmp_path / "alive", (1, 1))
    assert (tmp_path / "alive").stat().st_mtime == 1
    probes.turned(ready=True)
    assert (tmp_path / "alive").stat().st_mtime > 1


def test_what_a_killed_predecessor_left_is_not_believed(tmp_path: Path) -> None:
    """An old `alive` would have a process killed for what another one did not do."""
    (tmp_path / "ready").touch()
    (tmp_path / "alive").touch()
    Probes(tmp_path)
    assert files(tmp_path) == set()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="probe_dir"):
        Probes(tmp_path / "file")


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    probes = Probes(None)
    probes.turned(ready=True)
    probes.close()
    assert files(tmp_path) == set()


def test_the_files_go_when_the_loop_of_a_worker_ends(tmp_path: Path) -> None:
    """One without seats takes part at once; stopped before it begins, it says goodbye."""
    worker = Worker(Inbox(capacity=1), drain_s=0.0)
    worker.probes = Probes(tmp_path)
    worker.register(None)
    worker._turn()
    assert files(tmp_path) == {"alive", "ready"}
    worker.stopping = True
    worker.run()
    worker.close()
    assert files(tmp_path) == set()
