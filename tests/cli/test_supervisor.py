"""The supervisor over small real processes that speak the ready protocol."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from epd.cli.child import ChildSpec
from epd.cli.supervisor import Ready, StopSignals, Supervisor

# A child that says it is ready, then does what BODY says until it is told to stop.
CHILD = """
import argparse, json, os, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--ready-fd", type=int)
parser.add_argument("--parent-fd", type=int)
args = parser.parse_args()
def ready(**said):
    with os.fdopen(args.ready_fd, "w") as pipe:
        pipe.write(json.dumps({"ready": True, "pid": os.getpid(), **said}) + "\\n")
def note(word):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(word + "\\n")
"""
SERVE = "ready(); signal.sigwait([signal.SIGTERM])"

# In its first life a child that may not die while others still start waits until all are ready.
READY_WITH_ALL = """
lives = len(open(os.environ["NOTES"]).readlines()); note("life")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); ready()
if not lives: signal.sigwait([signal.SIGUSR1])
"""

SpecBuilder = Callable[[str, str], ChildSpec]


@pytest.fixture
def stop() -> Iterator[StopSignals]:
    with StopSignals() as signals:
        yield signals


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where children write what happened to them, a word a line."""
    path = tmp_path / "notes"
    path.touch()
    return path


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a process behind, not even a zombie."""
    before = psutil.Process().children(recursive=True)
    yield
    assert psutil.Process().children(recursive=True) == before


@pytest.fixture
def spec(notes: Path) -> SpecBuilder:
    def build(name: str, body: str) -> ChildSpec:
        argv = (sys.executable, "-S", "-c", CHILD + body)
        env = {**os.environ, "NOTES": str(notes), "NAME": name}
        return ChildSpec(name=name, role=name.split("-")[0], argv=argv, env=env)

    return build


def tell_encode(ready: Ready) -> None:
    """All are ready."""
    os.kill(ready["encode-0"]["pid"], signal.SIGUSR1)


def supervisor(
    specs: list[ChildSpec],
    stop: StopSignals,
    on_ready: Callable[[Ready], None] = lambda ready: None,
    *,
    start_timeout_s: float = 30.0,
    stop_grace_s: float = 10.0,
    max_restarts: int = 5,
    parent_fd: int | None = None,
) -> Supervisor:
    return Supervisor(
        specs,
        stop,
        on_ready=on_ready,
        start_timeout_s=start_timeout_s,
        stop_grace_s=stop_grace_s,
        max_restarts=max_restarts,
        parent_fd=parent_fd,
    )


def send_stop(ready: Ready) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_all_ready_is_announced_once_with_every_ready_line(
    spec: SpecBuilder, stop: StopSignals
) -> None:
    heard: list[Ready] = []

    def on_ready(ready: Ready) -> None:
        heard.append(ready)
        send_stop(ready)

    gateway = spec("gateway-0", "ready(url='u'); signal.sigwait([signal.SIGTERM])")
    code = supervisor([gateway, spec("encode-0", SERVE)], stop, on_ready).run()
    assert code == 0
    assert len(heard) == 1
    assert heard[0]["gateway-0"]["url"] == "u"
    assert set(heard[0]) == {"gateway-0", "encode-0"}


def test_the_end_of_its_parents_pipe_is_a_stop_signal(
    spec: SpecBuilder, stop: StopSignals, notes: Path
) -> None:
    """Whoever started it was killed, say: all stop in order."""
    reader, writer = os.pipe()
    body = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); ready()\n"
        "signal.sigwait([signal.SIGTERM]); note('stopped')"
    )
    try:
        child = spec("gateway-0", body)
        code = supervisor([child], stop, lambda _: os.close(writer), parent_fd=reader).run()
    finally:
        os.close(reader)
    assert code == 0
    assert notes.read_text().splitlines() == ["stopped"]


def test_stop_goes_role_by_role_and_a_role_stops_only_when_the_one_before_has_ended(
    spec: SpecBuilder, stop: StopSignals, notes: Path
) -> None:
    body = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); ready()\n"
        "signal.sigwait([signal.SIGTERM]); note('stop ' + os.environ['NAME'])\n"
        "sum(range(10**6)); note('gone ' + os.environ['NAME'])"
    )
    names = ["gateway-0", "encode-0", "prefill-0", "decode-0"]
    assert supervisor([spec(name, body) for name in names], stop, send_stop).run() == 0
    expected = [f"{word} {name}" for name in names for word in ("stop", "gone")]
    assert notes.read_text().splitlines() == expected


def test_a_child_that_dies_at_start_fails_with_its_name_code_and_last_words(
    spec: SpecBuilder, stop: StopSignals, caplog: pytest.LogCaptureFixture
) -> None:
    bad = spec("prefill-0", "print('no such weights', file=sys.stderr); sys.exit(3)")
    assert supervisor([spec("gateway-0", SERVE), bad], stop).run() == 1
    assert "prefill-0 did not start (exit code 3): no such weights" in caplog.text


def test_an_error_on_the_ready_pipe_is_the_reason_given(
    spec: SpecBuilder, stop: StopSignals, caplog: pytest.LogCaptureFixture
) -> None:
    body = (
        "print('noise', file=sys.stderr)\n"
        "os.write(args.ready_fd, json.dumps({'error': 'port 80 is taken'}).encode() + b'\\n')\n"
        "sys.exit(2)"
    )
    assert supervisor([spec("gateway-0", body)], stop).run() == 1
    assert "gateway-0 did not start (exit code 2): port 80 is taken" in caplog.text


def test_a_killed_child_fails_the_start_naming_the_signal(
    spec: SpecBuilder, stop: StopSignals, caplog: pytest.LogCaptureFixture
) -> None:
    bad = spec("decode-0", "os.kill(os.getpid(), signal.SIGKILL)")
    assert supervisor([bad], stop).run() == 1
    assert "decode-0 did not start (killed by SIGKILL)" in caplog.text


def test_a_child_that_never_gets_ready_fails_at_the_timeout(
    spec: SpecBuilder, stop: StopSignals, caplog: pytest.LogCaptureFixture
) -> None:
    slow = spec("decode-0", "signal.pause()")
    assert supervisor([slow], stop, start_timeout_s=0.5).run() == 1
    assert "decode-0 did not start (not ready after" in caplog.text


def test_a_child_that_dies_later_is_started_again_as_a_new_process(
    spec: SpecBuilder, stop: StopSignals, notes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = (
        "lives = len(open(os.environ['NOTES']).readlines()); note(str(os.getpid())); ready()\n"
        "os.kill(os.getppid(), signal.SIGTERM) if lives else None\n"
        "signal.sigwait([signal.SIGTERM])"
    )

    def on_ready(ready: Ready) -> None:
        os.kill(ready["encode-0"]["pid"], signal.SIGKILL)

    assert supervisor([spec("encode-0", body)], stop, on_ready).run() == 0
    first, second = notes.read_text().splitlines()
    assert first != second
    assert "ended: killed by SIGKILL; starting it again" in caplog.text


def test_dying_again_and_again_fails_the_command(
    spec: SpecBuilder, stop: StopSignals, notes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = READY_WITH_ALL + "sys.stdout.write('sticky\\n'); sys.stdout.flush(); sys.exit(7)"
    specs = [spec("gateway-0", SERVE), spec("encode-0", body)]
    assert supervisor(specs, stop, tell_encode, max_restarts=2).run() == 1
    assert notes.read_text().count("life") == 3
    assert "3 ends within 60 s, the last of encode-0 (exit code 7): sticky" in caplog.text


def test_a_child_that_leaves_in_good_order_is_started_again_and_no_death(
    spec: SpecBuilder, stop: StopSignals, notes: Path
) -> None:
    """As a worker does that was drained."""
    body = (
        READY_WITH_ALL + "os.kill(os.getppid(), signal.SIGTERM) if lives == 2 else None\n"
        "sys.exit(0) if lives < 2 else signal.sigwait([signal.SIGTERM])"
    )
    specs = [spec("gateway-0", SERVE), spec("encode-0", body)]
    assert supervisor(specs, stop, tell_encode, max_restarts=0).run() == 0
    assert notes.read_text().count("life") == 3


def test_a_child_deaf_to_sigterm_is_killed_after_the_grace(
    spec: SpecBuilder, stop: StopSignals, caplog: pytest.LogCaptureFixture
) -> None:
    deaf = spec(
        "decode-0",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready()\nwhile True: signal.pause()",
    )
    assert supervisor([deaf], stop, send_stop, stop_grace_s=0.3).run() == 0
    assert "decode-0 did not stop within 0.3 s: killed" in caplog.text


def test_a_second_signal_kills_at_once(spec: SpecBuilder, stop: StopSignals) -> None:
    deaf = spec(
        "decode-0",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready()\nwhile True: signal.pause()",
    )

    def on_ready(ready: Ready) -> None:
        send_stop(ready)
        send_stop(ready)

    assert supervisor([deaf], stop, on_ready, stop_grace_s=600.0).run() == 0


def test_output_larger_than_a_pipe_never_blocks_a_child(
    spec: SpecBuilder, stop: StopSignals, capfd: pytest.CaptureFixture[str]
) -> None:
    loud = spec("encode-0", "print(('x' * 1000 + '\\n') * 300, flush=True); " + SERVE)
    assert supervisor([loud], stop, send_stop).run() == 0
    assert capfd.readouterr().err.count("encode-0 | xxx") == 300


def test_ctrl_c_in_the_terminal_reaches_no_child(spec: SpecBuilder, stop: StopSignals) -> None:
    """A terminal signals its foreground process group: a child must not be in ours."""
    groups: list[int] = []

    def on_ready(ready: Ready) -> None:
        groups.append(os.getpgid(ready["encode-0"]["pid"]))
        send_stop(ready)

    supervisor([spec("encode-0", SERVE)], stop, on_ready).run()
    assert groups != [os.getpgid(0)]


def test_children_learn_that_the_supervisor_was_killed() -> None:
    """kill -9 leaves no chance to tell them: their end of the parent pipe reads end-of-file."""
    child = CHILD + "ready(); os.read(args.parent_fd, 1); os._exit(0)"
    code = (
        "import sys, logging\n"
        "from epd.cli.child import ChildSpec\n"
        "from epd.cli.supervisor import StopSignals, Supervisor\n"
        f"spec = ChildSpec(name='e-0', role='e', argv=(sys.executable, '-S', '-c', {child!r}))\n"
        "with StopSignals() as stop:\n"
        "    say = lambda ready: print(ready['e-0']['pid'], flush=True)\n"
        "    Supervisor([spec], stop, on_ready=say, start_timeout_s=30, stop_grace_s=5,\n"
        "               max_restarts=0).run()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as own:
        assert own.stdout is not None
        orphan = psutil.Process(int(own.stdout.readline()))
        own.kill()
        orphan.wait(timeout=20)
    assert not orphan.is_running()


def test_what_a_child_says_that_is_no_json_is_an_error(
    spec: SpecBuilder, stop: StopSignals, caplog: pytest.LogCaptureFixture
) -> None:
    assert (
        supervisor(
            [spec("encode-0", "os.write(args.ready_fd, b'hello\\n'); sys.exit(0)")], stop
        ).run()
        == 1
    )
    assert "said 'hello' where its ready line was due" in caplog.text
