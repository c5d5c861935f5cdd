"""Scripts on many hosts at once, as many as are allowed; of each host its answer, or why not."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

SSH_FAILED = 255
ANSWER_S = 60
"""Beside what a script itself may wait for."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of one process."""

    name: str
    state: str
    pid: str
    words: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one host: lines, or what went wrong."""

    lines: tuple[Line, ...] = ()
    error: str = ""


def command(ssh: Sequence[str], host: str) -> list[str]:
    """What is run here; the script is its standard input, so that no `ps` shows a key."""
    return [*ssh, host, "sh -s"]


def on_all(
    ssh: Sequence[str], scripts: Mapping[str, str], *, parallel: int, seconds: int
) -> dict[str, Answer]:
    """Run each host's script; `seconds` is what it may wait for. Never raises for a host."""
    with ThreadPoolExecutor(parallel) as pool:
        asked = {
            host: pool.submit(_ask, command(ssh, host), script, seconds + ANSWER_S)
            for host, script in scripts.items()
        }
        return {host: answer.result() for host, answer in asked.items()}


def _ask(argv: Sequence[str], script: str, timeout_s: int) -> Answer:
    try:
        done = subprocess.run(
            argv, input=script, capture_output=True, text=True, errors="replace", timeout=timeout_s
        )
    except OSError as error:
        return Answer(error=f"cannot run {argv[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Answer(error=f"no answer within {timeout_s} s")
    words = done.stderr.strip().splitlines()
    last = words[-1] if words else "it said nothing"
    if done.returncode == SSH_FAILED:
        return Answer(error=f"ssh failed: {last}")
    if done.returncode:
        return Answer(error=f"exit code {done.returncode}: {last}")
    return Answer(tuple(map(_line, done.stdout.splitlines())))


def _line(text: str) -> Line:
    name, state, pid, words = (text.split("\t", 3) + [""] * 3)[:4]
    return Line(name, state, pid, words)


def stream(ssh: Sequence[str], scripts: Mapping[str, str], *, follow: bool) -> int:
    """Run all at once, their output passed on as it comes; the worst exit code.

    With `follow` their input stays open, and a script ends when it is closed: nothing is left on a
    host however this ends.
    """
    running = [
        subprocess.Popen(command(ssh, host), stdin=subprocess.PIPE, text=True) for host in scripts
    ]
    try:
        for process, script in zip(running, scripts.values(), strict=True):
            assert process.stdin is not None
            process.stdin.write(script)
            process.stdin.flush() if follow else process.stdin.close()
        return max(process.wait() for process in running)
    except KeyboardInterrupt:
        return 130
    finally:
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
