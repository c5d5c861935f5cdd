"""Bad media against a live cluster, and whether it is as well afterwards as before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import httpx
import psutil

from tests.cluster.running import Cluster
from tests.cluster.traces import children_of
from tests.corpus.entry import Entry

CLIENTS = 4
ANSWER_S = 120.0

SECRETS = re.compile(
    r"(?<!\d)0x[0-9a-f]{6,}|/tmp/|/home|/usr/|site-packages|Traceback|root:|127\.0\.0\.1"
)
"""What no client is told: addresses of memory and machines, paths, code, contents of files."""


@dataclass(frozen=True)
class Said:
    """How one request ended."""

    status: int
    text: str

    @property
    def reason(self) -> str:
        return self.text if self.status != 200 else ""


def is_decoder(process: psutil.Process) -> bool:
    """Whether it decodes media for a role, with or without its title yet, or is gone already."""
    try:
        return "decoder" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return True


class Patient:
    """A live cluster that is asked bad things; what it says to good ones is known."""

    def __init__(self, cluster: Cluster, good: Iterable[list[Any]]) -> None:
        self.cluster = cluster
        self._http = httpx.Client(
            timeout=ANSWER_S, limits=httpx.Limits(max_connections=CLIENTS + 2)
        )
        self._good = [(content, self.ask(content)) for content in good]
        assert all(said.status == 200 for _, said in self._good), self._good
        self._roles = self._role_pids()
        self.num_asked = 0

    def close(self) -> None:
        self._http.close()

    def ask(self, content: list[Any], **extra: Any) -> Said:
        """One user turn; greedy, a few tokens."""
        body = {
            "model": self.cluster.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": 4,
            **extra,
        }
        url = f"{self.cluster.url}/v1/chat/completions"
        response = self._http.post(url, content=json.dumps(body))  # any character, escaped
        found = response.json()
        if response.status_code == 200:
            return Said(200, found["choices"][0]["message"]["content"])
        error = found["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        return Said(response.status_code, error["message"])

    def wrong(self, entries: Iterable[Entry]) -> list[str]:
        """What was not as expected, in words; the cluster is looked at again and again."""
        found: list[str] = []
        rest = iter(entries)
        with ThreadPoolExecutor(CLIENTS) as threads:
            while batch := list(islice(rest, 2 * CLIENTS)):
                said = threads.map(self._try, batch)
                found += [fault for fault in said if fault]
                faults = self.faults()
                assert not faults, (faults, [entry.name for entry in batch])
        return found

    def _try(self, entry: Entry) -> str:
        self.num_asked += 1
        said = self.ask([entry.part, {"type": "text", "text": "?"}], **entry.extra)
        if said.status not in entry.statuses:
            return f"{entry.name}: {said.status} {said.text[:200]!r}, not {entry.statuses}"
        if entry.word.lower() not in said.reason.lower() and said.status != 200:
            return f"{entry.name}: {entry.word!r} is not in {said.reason[:200]!r}"
        if secret := SECRETS.search(said.reason):
            return f"{entry.name}: tells {secret.group()!r} in {said.reason[:200]!r}"
        return ""

    def faults(self) -> str:
        """Every good request is answered as before, by the same processes."""
        for content, before in self._good:
            if (now := self.ask(content)) != before:
                return f"{now} where it was {before}"
        if (roles := self._role_pids()) != self._roles:
            return f"processes {roles} where there were {self._roles}"
        return ""

    def _role_pids(self) -> set[int]:
        """Of the roles: decoder processes may be replaced."""
        return {
            child.pid for child in children_of(self.cluster.process.pid) if not is_decoder(child)
        }

    def num_decoders(self) -> int:
        """Processes below the roles."""
        return len(children_of(self.cluster.process.pid)) - len(self._roles)

    def server_errors(self) -> float:
        """Requests that ended with a 5xx, as the cluster counts them."""
        return sum(
            value
            for name, value in self.cluster.metrics().items()
            if re.match(r'epd_requests_total\{.*status="5', name)
        )
