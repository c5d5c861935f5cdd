"""`python -m launch.multi_node` over stand-ins: real shells and processes, no network, no model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from epd.cli.main import build_parser
from epd.cli.main import main as epd
from epd.config import load_config
from launch.multi_node.__main__ import main
from tests.cluster.front import eventually
from tests.launch.stand_ins import cluster_file

EVERY = {"gateway-0", "encode-0", "encode-1", "prefill-0", "prefill-1", "decode-0", "decode-1"}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    found = cluster_file(tmp_path)
    yield found
    main(["stop", str(found), "--now"])
    assert pids(tmp_path) == {}


def pids(folder: Path) -> dict[str, int]:
    """Of all that were started, by name."""
    return {f.stem: int(f.read_text().split()[0]) for f in folder.glob("*/run/*.pid")}


def rows(text: str) -> dict[str, str]:
    """A table's states by name."""
    return {m[1]: m[2] for m in re.finditer(r"^(?:front|back) +(\S+) +(\S+)", text, re.MULTILINE)}


def test_a_cluster_starts_shows_itself_and_stops(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["start", str(file)]) == 0
    assert rows(capsys.readouterr().out) == dict.fromkeys(EVERY, "ready")
    assert set(pids(tmp_path)) == EVERY

    assert main(["start", str(file)]) == 0, "what runs is left alone"
    before = pids(tmp_path)
    capsys.readouterr()
    assert main(["status", str(file)]) == 1, "no stand-in answers the probe"
    shown = capsys.readouterr().out
    assert rows(shown) == dict.fromkeys(EVERY, "ready")
    assert "gateway-0 at http://127.0.0.1:8000 on front: not ready" in shown
    assert pids(tmp_path) == before

    assert main(["stop", str(file)]) == 0
    assert rows(capsys.readouterr().out) == dict.fromkeys(EVERY, "stopped")
    for pid in before.values():
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_is_run_is_a_role_by_hand_with_the_file_that_was_written(
    file: Path, tmp_path: Path
) -> None:
    main(["start", str(file), "encode-1"])
    said = (tmp_path / "front" / "run" / "encode-1.log").read_text().split()
    args = build_parser().parse_args(said[2:-2])
    assert (said[:2], args.command) == (["-m", "epd"], "encode")
    config = load_config(tmp_path / "front" / "run" / args.config, args.overrides)
    assert (config.name, config.model) == ("encode-1", "/models/m")
    assert config.gateways == ("tcp://127.0.0.1:7400",)
    assert config.listen == "tcp://127.0.0.1:7402-7499"
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert (config.threads, said[-2]) == (threads, f"omp={threads}")


def test_restart_goes_one_by_one_and_each_is_a_new_process(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["start", str(file)])
    before = pids(tmp_path)
    assert main(["restart", str(file), "encode-0", "encode-1", "decode-0", "decode-1"]) == 0
    after = pids(tmp_path)
    changed = {name for name in EVERY if before[name] != after[name]}
    assert changed == {"encode-0", "encode-1", "decode-0", "decode-1"}


def test_restart_refuses_to_leave_a_role_without_anybody(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["restart", str(file)]) == 2
    assert "gateway-0: no other process has its role" in capsys.readouterr().err


def test_a_restart_that_fails_leaves_the_others_alone(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["start", str(file)])
    before = pids(tmp_path)
    (tmp_path / "broken").write_text("decode-0")
    assert main(["restart", str(file), "decode-0", "decode-1"]) == 1
    assert "no such model" in (said := capsys.readouterr().out)
    assert "decode-0 does not serve; those after it run as before" in said
    assert pids(tmp_path)["decode-1"] == before["decode-1"]


@pytest.mark.parametrize(
    ("how", "state", "words"),
    [("broken", "failed", "no such model"), ("mute", "died", "Segmentation fault")],
)
def test_a_process_that_does_not_start_is_named_with_its_reason(
    how: str,
    state: str,
    words: str,
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / how).write_text("prefill-1")
    assert main(["start", str(file)]) == 1
    said = capsys.readouterr().out
    assert rows(said) == {**dict.fromkeys(EVERY, "ready"), "prefill-1": state}
    assert words in said


def test_a_host_that_cannot_be_reached_is_named_and_the_others_start(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "back").rmdir()
    assert main(["start", str(file)]) == 1
    told = capsys.readouterr()
    assert "back: ssh failed: no route to host back" in told.err
    assert rows(told.out) == dict.fromkeys(("gateway-0", "encode-0", "encode-1"), "ready")
    (tmp_path / "back").mkdir()


def test_a_process_that_does_not_end_is_killed_after_its_time(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.multi_node.actions.MARGIN_S", 1)
    (tmp_path / "deaf").write_text("decode-0")
    main(["start", str(file), "decode-0"])
    assert main(["stop", str(file), "decode-0"]) == 0
    assert "had not ended after 1 s, and was killed" in capsys.readouterr().out


def test_a_pid_that_another_process_has_meanwhile_is_not_touched(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "back" / "run"
    run.mkdir(parents=True)
    (run / "decode-0.pid").write_text(f"{os.getpid()} 1\n")
    caught: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    try:
        assert main(["stop", str(file), "decode-0"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == []


def test_what_another_version_of_the_file_started_is_shown_and_stopped(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["start", str(file)])
    text = file.read_text()
    file.write_text(text.replace("decode: 2", "decode: 1"))
    capsys.readouterr()
    main(["status", str(file)])
    assert re.search(r"decode-1 .*not in the file of the hosts", capsys.readouterr().out)
    assert main(["stop", str(file)]) == 0
    assert pids(tmp_path) == {}


def test_logs_are_shown_with_the_names_of_their_processes(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["start", str(file), "encode-0", "decode-1"])
    capfd.readouterr()
    assert main(["logs", str(file), "encode-0", "decode-1"]) == 0
    told = capfd.readouterr().out
    assert "encode-0 | -m epd encode --config encode-0.yaml" in told
    assert "decode-1 | -m epd decode --config decode-1.yaml" in told


def test_logs_that_are_followed_leave_nothing_on_the_hosts(file: Path, tmp_path: Path) -> None:
    main(["start", str(file), "encode-0", "decode-1"])
    argv = [sys.executable, "-m", "launch.multi_node", "logs", str(file), "encode-0", "decode-1"]
    watching = subprocess.Popen([*argv, "--follow"], stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    first = {watching.stdout.readline().split()[0] for _ in range(2)}
    assert first == {"encode-0", "decode-1"}
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 130
    watching.stdout.close()
    eventually(lambda: tails(tmp_path) == [], "all of them end")


def tails(folder: Path) -> list[int]:
    """Processes that follow a log of these hosts."""
    found = []
    for process in psutil.process_iter(["name", "cwd"]):
        if process.info["name"] == "tail" and str(folder) in str(process.info["cwd"]):
            found.append(process.pid)
    return found


def test_a_dry_run_prints_everything_but_keys_and_asks_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert epd(["keys", str(tmp_path / "secret")]) == 0
    settings = ["drain_s=0", "gateway.admin_key=the-admins"]
    file = cluster_file(tmp_path, keys="secret", settings=settings)
    for command in ("start", "stop", "status", "logs"):
        assert main([command, str(file), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "launch decode-1 4 auto" in told and "cluster.secret" in told
    assert (tmp_path / "secret" / "cluster.secret").read_text().strip() not in told
    assert "the-admins" not in told
    assert not (tmp_path / "asked").exists()


def test_keys_come_to_the_hosts_where_nobody_else_can_read_them(tmp_path: Path) -> None:
    epd(["keys", str(tmp_path / "secret")])
    file = cluster_file(tmp_path, keys="secret")
    main(["start", str(file), "decode-0"])
    there = tmp_path / "back" / "run" / "keys" / "cluster.secret"
    assert there.read_bytes() == (tmp_path / "secret" / "cluster.secret").read_bytes()
    assert there.stat().st_mode & 0o777 == 0o600
    assert load_config(tmp_path / "back" / "run" / "decode-0.yaml").wire.curve_dir == Path("keys")
    main(["stop", str(file), "--now"])
