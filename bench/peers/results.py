"""The file of a comparison: what was measured so far, written after every load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.serving import hardware


@dataclass(slots=True, kw_only=True)
class Results:
    """`runs` has a record per server, load and round; `servers` how each was started."""

    path: Path
    runs: list[dict[str, Any]] = field(default_factory=list)
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Results:
        """As the file has it; of a file that is not there, nothing."""
        if not path.is_file():
            return cls(path=path)
        found = json.loads(path.read_text())
        return cls(
            path=path, runs=found["runs"], servers=found["servers"], command=found["command"]
        )

    def has(self, server: str, load: str, number: int) -> bool:
        """Whether it was measured."""
        return any(_is(run, server, load, number) for run in self.runs)

    def add(self, server: str, load: str, number: int, found: Mapping[str, Any]) -> None:
        """Write it down, in place of what was there for the same."""
        self.runs = [run for run in self.runs if not _is(run, server, load, number)]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.runs.append({"server": server, "load": load, "round": number, "date": now, **found})
        self.write()

    def write(self) -> None:
        """All of it, at once or not at all."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({**self.facts(), "runs": self.runs}) + "\n")
        new.replace(self.path)

    def facts(self) -> dict[str, Any]:
        """Everything but the runs."""
        head = {"question": "peers", "command": self.command}
        return {**head, **hardware.facts(), "servers": self.servers}


def _is(run: Mapping[str, Any], server: str, load: str, number: int) -> bool:
    return (run["server"], run["load"], run["round"]) == (server, load, number)
