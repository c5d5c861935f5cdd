"""What is to run on one host, as text for `sh -s`: the functions of remote.sh, then calls. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from launch.cluster import Cluster
from launch.plan import KEYS, Process

FUNCTIONS = (Path(__file__).parent / "remote.sh").read_text(encoding="utf-8")


def start(cluster: Cluster, some: Sequence[Process], keys: Mapping[str, str]) -> str:
    """Write the files of these processes of one host, start them, and wait until they serve."""
    lines = [*_files(keys, some)]
    for process in some:
        env = [f"{key}={value}" for key, value in process.env.items()]
        command = [*(["env", *env] if env else []), cluster.python, "-m", "epd", process.role]
        threads = process.config.threads or "auto"
        lines.append(_call("launch", process.name, process.share, threads, *command))
    lines.append(_call("await", cluster.start_timeout_s, *_names(some)))
    return _inside(cluster, lines)


def halt(cluster: Cluster, names: Sequence[str], *, now: bool, seconds: int) -> str:
    """End these; without names, whatever was started in the run directory."""
    words = " ".join(map(shlex.quote, names)) or "$(names)"
    return _inside(cluster, [f"halt {'now' if now else 'drain'} {seconds} {words}"])


def restart(cluster: Cluster, process: Process, keys: Mapping[str, str], *, seconds: int) -> str:
    """End it in good order, then start it with new files."""
    again = start(cluster, [process], keys).removeprefix(_inside(cluster, []))
    return _inside(cluster, [_call("halt", "drain", seconds, process.name)]) + again


def status(cluster: Cluster) -> str:
    """All that were started in the run directory."""
    return _inside(cluster, ['for name in $(names); do show "$name"; done'])


def logs(cluster: Cluster, some: Sequence[Process], *, lines: int, follow: bool) -> str:
    """The ends of their logs, each line with its process's name."""
    return _inside(cluster, [_call("follow" if follow else "logs", lines, *_names(some))])


def ask_ready(cluster: Cluster, gateway: Process) -> str:
    """Whether a gateway has every stage: its open probe, asked on its own host."""
    at = gateway.config.gateway
    host = "127.0.0.1" if at.host in ("0.0.0.0", "::") else at.host
    url = f"http://{f'[{host}]' if ':' in host else host}:{at.port}"
    probe = (
        "import sys, urllib.request as u\n"
        f"try: u.urlopen({url + '/ready'!r}, timeout=5); state = 'ready'\n"
        "except OSError as error: state = 'not ready (%s)' % error\n"
        f"print({gateway.name!r}, state, '', {url!r}, sep='\\t')"
    )
    return _inside(cluster, [shlex.join([cluster.python, "-c", probe])])


def keys_of(cluster: Cluster) -> dict[str, str]:
    """The files of the cluster's CURVE keys, by name."""
    if cluster.keys is None:
        return {}
    files = sorted(cluster.keys.glob("cluster.*"))
    return {file.name: file.read_text(encoding="ascii") for file in files}


def _files(keys: Mapping[str, str], some: Iterable[Process]) -> list[str]:
    lines = [f"mkdir -p {KEYS}"] if keys else []
    texts = {f"{KEYS}/{name}": text for name, text in keys.items()}
    texts |= {f"{process.name}.yaml": process.text for process in some}
    for name, text in texts.items():
        lines.append(f"printf %s {shlex.quote(text)} > {shlex.quote(name)}")
    return lines


def _inside(cluster: Cluster, lines: Iterable[str]) -> str:
    """The lines, run in the run directory, which is ours alone."""
    folder = shlex.quote(cluster.run_dir)
    return "\n".join([FUNCTIONS, f"mkdir -p {folder} && cd {folder} || exit 1", *lines, ""])


def _call(function: str, *words: object) -> str:
    return shlex.join([function, *map(str, words)])


def _names(some: Iterable[Process]) -> list[str]:
    return [process.name for process in some]
