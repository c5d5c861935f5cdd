"""The commands: what each asks of which host in which order, and what it prints of the answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

from epd.errors import ConfigError
from launch.cluster import Cluster
from launch.multi_node import scripts, ssh
from launch.plan import Process, alone, by_host, chosen, processes

MARGIN_S = 30
"""Beside `drain_s`, before a process that ends is killed."""
HEAD = ("HOST", "NAME", "STATE", "PID", "")
GOOD = ("ready", "stopped")


class Nodes:
    """A cluster on its hosts. Every command's result is an exit code: 0, or 1 where one failed."""

    def __init__(self, cluster: Cluster, *, dry_run: bool) -> None:
        self._cluster = cluster
        self._every = processes(cluster)
        self._dry_run = dry_run
        self._keys = scripts.keys_of(cluster)
        if cluster.keys is not None and len(self._keys) < 2:
            raise ConfigError(
                f"keys: {cluster.keys} has no keys; make them with `epd keys {cluster.keys}`"
            )

    def start(self, names: Sequence[str]) -> int:
        """All at once: workers knock until a gateway answers."""
        some = chosen(self._every, names)
        each = {
            host: scripts.start(self._cluster, mine, self._keys)
            for host, mine in by_host(some).items()
        }
        return self._do("start", some, each, self._cluster.start_timeout_s)

    def stop(self, names: Sequence[str], *, now: bool) -> int:
        """Gateways first: their clients' requests end while the workers still run."""
        some = chosen(self._every, names)
        gateways = [process for process in some if process.role == "gateway"]
        seconds = MARGIN_S if now else self._grace(some)
        code = 0
        for part in (gateways, [process for process in some if process.role != "gateway"]):
            each = {
                host: scripts.halt(
                    self._cluster,
                    # The last part takes what another version of the file had started along.
                    [process.name for process in mine] if names or part is gateways else [],
                    now=now,
                    seconds=seconds,
                )
                for host, mine in by_host(part).items()
            }
            if each:
                code |= self._do("stop", part, each, seconds)
        return code

    def restart(self, names: Sequence[str], *, anyway: bool) -> int:
        """Workers, then gateways, each only when the one before serves again."""
        some = chosen(self._every, names)
        some.sort(key=lambda process: process.role == "gateway")
        if (single := alone(self._every, some)) and not anyway:
            raise ConfigError(
                f"{', '.join(p.name for p in single)}: no other process has its role, so requests "
                "would wait or fail meanwhile; --anyway restarts all the same, names choose others"
            )
        for process in some:
            seconds = self._grace([process])
            script = scripts.restart(self._cluster, process, self._keys, seconds=seconds)
            limit = seconds + self._cluster.start_timeout_s
            if self._do("restart", [process], {process.host.host: script}, limit):
                self._tell(f"{process.name} does not serve; those after it run as before")
                return 1
        return 0

    def status(self) -> int:
        """What runs where, against what should, and what the gateways say of the whole."""
        each = {host.host: scripts.status(self._cluster) for host in self._cluster.hosts}
        if self._dry_run:
            return self._do("status", self._every, each, 0)
        answers = self._ask(each, 0)
        rows, failed = [], _errors(answers)
        for host, answer in answers.items():
            wanted = {process.name for process in self._every if process.host.host == host}
            found = {line.name: line for line in answer.lines}
            for name in sorted(wanted - set(found)) if not answer.error else []:
                rows.append((host, name, "stopped", "", ""))
                failed.append(name)
            for name, line in sorted(found.items()):
                words = _reason(line) if name in wanted else "not in the file of the hosts"
                rows.append((host, name, line.state, line.pid, words))
                if line.state not in GOOD:
                    failed.append(name)
        gateways = [process for process in self._every if process.role == "gateway"]
        probes = {p.host.host: scripts.ask_ready(self._cluster, p) for p in gateways}
        self._table(rows)
        for host, answer in self._ask(probes, 0).items():
            for line in answer.lines:
                self._tell(f"{line.name} at {line.words} on {host}: {line.state}")
                failed += [line.name] if line.state not in GOOD else []
        return 1 if failed else 0

    def logs(self, names: Sequence[str], *, lines: int, follow: bool) -> int:
        """Of all hosts at once, each line with its process's name."""
        some = chosen(self._every, names)
        each = {
            host: scripts.logs(self._cluster, mine, lines=lines, follow=follow)
            for host, mine in by_host(some).items()
        }
        if self._dry_run:
            return self._do("logs", some, each, 0)
        return ssh.stream(self._cluster.ssh, each, follow=follow)

    def _grace(self, some: Iterable[Process]) -> int:
        return MARGIN_S + int(max(process.config.drain_s for process in some))

    def _ask(self, each: Mapping[str, str], seconds: int) -> dict[str, ssh.Answer]:
        return ssh.on_all(self._cluster.ssh, each, parallel=self._cluster.parallel, seconds=seconds)

    def _do(self, verb: str, some: Sequence[Process], each: Mapping[str, str], seconds: int) -> int:
        """Run the scripts, or show them; 1 where a host or a process failed."""
        if self._dry_run:
            self._show(verb, some, each)
            return 0
        answers = self._ask(each, seconds)
        failed = bool(_errors(answers))
        rows = []
        for host, answer in answers.items():
            for line in _last(answer.lines):
                rows.append((host, line.name, line.state, line.pid, _reason(line)))
                failed |= line.state not in GOOD
        self._table(rows)
        return int(failed)

    def _show(self, verb: str, some: Sequence[Process], each: Mapping[str, str]) -> None:
        """What would be run: the calls, without the functions that stand before all of them."""
        for host, script in each.items():
            names = [process.name for process in some if process.host.host == host]
            self._tell(f"# {verb} {', '.join(names)}")
            self._tell(" ".join(ssh.command(self._cluster.ssh, host)) + "  # and on its stdin:")
            for secret in self._secrets():
                script = script.replace(secret, "(a key)")
            calls = script.replace(scripts.FUNCTIONS, "").strip()
            self._tell("    " + calls.replace("\n", "\n    "))

    def _secrets(self) -> set[str]:
        """What a dry run does not print."""
        admin = {process.config.gateway.admin_key for process in self._every}
        return {*self._keys.values(), *admin} - {""}

    def _table(self, rows: Sequence[Sequence[str]]) -> None:
        if rows:
            widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
            for row in (HEAD, *rows):
                cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                self._tell("  ".join(cells).rstrip())

    def _tell(self, text: str) -> None:
        print(text, flush=True)


def _errors(answers: Mapping[str, ssh.Answer]) -> list[str]:
    """Names of hosts that could not be asked, each told of."""
    bad = {host: answer.error for host, answer in answers.items() if answer.error}
    for host, error in bad.items():
        print(f"{host}: {error}", file=sys.stderr)
    return list(bad)


def _last(lines: Iterable[ssh.Line]) -> list[ssh.Line]:
    """Of each process what was said last."""
    return list({line.name: line for line in lines}.values())


def _reason(line: ssh.Line) -> str:
    """Where it can be reached, or why it does not run."""
    try:
        said = json.loads(line.words)
    except ValueError:
        return line.words
    return str(said.get("error") or said.get("url") or "")
