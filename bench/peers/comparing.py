"""Goes through servers and loads, one server at a time, and leaves out what is known."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.peers.loads import LOADS, asked, measure
from bench.peers.results import Results
from bench.peers.servers import SERVERS, USUAL, Server
from bench.peers.starting import model_name, running, versions
from bench.serving.cluster import NotMeasured
from bench.serving.workload import Prompts
from epd.errors import EpdError

ROUNDS = 2

Point = tuple[str, str]
"""Server and load."""


def usual() -> list[Point]:
    """What is measured unless something else is named."""
    return [(server, load) for server in USUAL for load in LOADS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`url`: of a server that runs already; `again`: measure also what `results` has."""

    results: Results
    folder: Path
    prompts: Prompts
    url: str | None = None
    again: bool = False

    def measure(self, wanted: Collection[Point]) -> list[str]:
        """What could not be measured, in words; everything else is in the results then."""
        failures: list[str] = []
        for number in range(ROUNDS):
            for server in list(SERVERS.values())[:: -1 if number % 2 else 1]:
                if todo := self._todo(server.name, number, wanted):
                    failures += self._run(server, todo, number)
        return failures

    def _todo(self, server: str, number: int, wanted: Collection[Point]) -> list[str]:
        """Loads of this round."""
        return [
            name
            for name, load in LOADS.items()
            if (server, name) in wanted
            and number in load.rounds
            and (self.again or not self.results.has(server, name, number))
        ]

    def _run(self, server: Server, todo: Sequence[str], number: int) -> Iterator[str]:
        """One server in one round. Yields what could not be measured."""
        try:
            described = server.described(self.folder) | {"versions": versions(server)}
            self.results.servers[server.name] = described
            up = nullcontext(self.url) if self.url else running(server, self.folder)
            with up as url:
                yield from self._ask(server, todo, number, url)
        except (NotMeasured, EpdError, httpx.HTTPError, OSError) as error:
            yield f"{server.name}: {error}"

    def _ask(self, server: Server, todo: Sequence[str], number: int, url: str) -> Iterator[str]:
        model = model_name(url, self.folder)
        for name in todo:
            print(f"round {number}: {server.name}: {name}", file=sys.stderr)
            load = LOADS[name]
            bodies = asked(load, self.prompts, server.body, model, str(number))
            try:
                self.results.add(server.name, name, number, measure(load, bodies, url))
            except NotMeasured as error:
                yield f"{server.name}: {name}: {error}"
